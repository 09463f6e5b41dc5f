"""SQS, SNS and S3, as the settings name them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from bridge.aws.access import Aws, AwsAccess
from bridge.aws.names import Names, dead_letter_queue, short_name
from bridge.aws.payloads import PayloadPlace, Payloads
from bridge.aws.topology import Topology
from bridge.errors import ConfigurationError, PermanentError
from bridge.job import Job
from bridge.ledger.port import DeadLetter
from bridge.settings import Settings
from bridge.sinks.sqs import SqsQueues
from bridge.sources.freshness import Freshness
from bridge.sources.port import QueueLevel
from bridge.systems.wsi import platform_messages
from bridge.systems.wsi.platform_messages import AnswerNames

_DEPTHS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed")
_REDRIVE = "RedrivePolicy"
_log = structlog.get_logger()


@asynccontextmanager
async def open_aws(settings: Settings) -> AsyncIterator[Aws]:
    """Access to AWS, as it is set."""
    async with Aws(aws_access(settings), threads=max(16, 2 * settings.concurrency)) as aws:
        yield aws


def aws_access(settings: Settings) -> AwsAccess:
    """How AWS is reached."""
    return AwsAccess(
        region=settings.aws_region,
        endpoint=settings.aws_endpoint,
        access_key=settings.aws_access_key.get_secret_value(),
        secret_key=settings.aws_secret_key.get_secret_value(),
        session_token=settings.aws_session_token.get_secret_value(),
        role_arn=settings.aws_role_arn,
        role_external_id=settings.aws_role_external_id,
        role_seconds=settings.aws_role_seconds,
    )


def payloads(aws: Aws, settings: Settings) -> Payloads:
    """How bodies travel, and where large ones lie."""
    place = PayloadPlace(bucket=settings.sqs_payload_bucket, most_bytes=settings.sqs_payload_bytes)
    return Payloads(aws, place)


def object_options(settings: Settings) -> dict[str, str]:
    """How object storage reaches S3; what is empty it finds itself."""
    access = aws_access(settings)
    # A role's keys are lent anew every hour: they are asked for, not told.
    access_key, secret_key = ("", "") if access.role_arn else access.keys
    options = {
        "region": settings.wsi_bucket_region or access.region,
        "endpoint": access.endpoint,
        "access_key_id": access_key,
        "secret_access_key": secret_key,
        "session_token": "" if access.role_arn else access.session_token,
    }
    return {name: value for name, value in options.items() if value}


def topology(settings: Settings) -> Topology:
    """What there should be in SQS and SNS for these settings."""
    queues = list(settings.sqs_queues)
    if not settings.wsi_bucket:
        return Topology(queues=queues, outputs=[settings.results_queue] if queues else [])
    answers = AnswerNames()
    topics = [platform_messages.REQUESTED_TOPIC, answers.completed_topic, answers.failed_topic]
    # Platforms publish to the first queue; plain requests come by the one named for them.
    events = next((queue for queue in queues if short_name(queue) != platform_messages.PLAIN_QUEUE), "")
    plain = [answers.plain_queue] if any(short_name(queue) == platform_messages.PLAIN_QUEUE for queue in queues) else []
    subscriptions = {events: [platform_messages.REQUESTED_TOPIC]} if events else {}
    return Topology(queues=queues, outputs=[*plain, settings.results_queue], topics=topics, subscriptions=subscriptions)


def wsi_source(settings: Settings) -> str:
    """The slide worker's own address, as MassTransit writes it."""
    queue = short_name(settings.sqs_queues[0]) if settings.sqs_queues else "WsiAnalysisWorker"
    # With an emulator the platform sets no scope.
    place, scope = ("localhost", "") if settings.aws_endpoint else (settings.aws_region, settings.aws_scope)
    return "/".join(["amazonsqs:/", *(part for part in (place, scope, queue) if part)])


async def send_to_sqs(settings: Settings, job: Job, message: bytes) -> None:
    """Send a message that asks for a job to the first queue, or the last for one that can wait."""
    async with open_aws(settings) as aws:
        queue = settings.sqs_queues[0 if job.priority <= 0 else -1]
        await SqsQueues(aws, payloads=payloads(aws, settings)).send(queue, message, message_id=job.key, group=job.key)


async def resend_to_sqs(settings: Settings, letter: DeadLetter, *, message_id: str) -> None:
    """Send the bytes of a dead letter to the queue that they came from, under an id that a FIFO queue has not had."""
    async with open_aws(settings) as aws:
        queues = SqsQueues(aws, payloads=payloads(aws, settings))
        group = letter.attributes.get("MessageGroupId", "")
        await queues.send(letter.queue, letter.body, message_id=message_id, group=group, attributes=letter.attributes)


async def levels(aws: Aws, settings: Settings, freshness: Freshness) -> list[QueueLevel]:
    """What lies in each queue that is set; how old the oldest is follows from what was received. Raises as `Aws.call` does."""
    names = Names(aws)
    return [await _level(aws, names, queue, freshness) for queue in settings.sqs_queues]


async def depth(aws: Aws, settings: Settings) -> int:
    """How many messages lie in the queues that are set. Raises as `Aws.call` does."""
    return sum([round(level.waiting + level.leased + level.delayed) for level in await levels(aws, settings, Freshness())])


async def _level(aws: Aws, names: Names, queue: str, freshness: Freshness) -> QueueLevel:
    told = await aws.call("sqs", "get_queue_attributes", QueueUrl=await names.queue_url(queue), AttributeNames=[*_DEPTHS, _REDRIVE])
    waiting, leased, delayed = (int(told["Attributes"].get(name, 0)) for name in _DEPTHS)
    return QueueLevel(
        queue=short_name(queue),
        waiting=waiting,
        leased=leased,
        delayed=delayed,
        oldest_seconds=freshness.oldest(queue, waiting=waiting),
        dead=await _dead(aws, names, told["Attributes"].get(_REDRIVE, "")),
    )


async def _dead(aws: Aws, names: Names, policy: str) -> float:
    """How many messages SQS has moved away; NaN where it moves none, or does not tell us."""
    if not (queue := dead_letter_queue(policy)):
        return math.nan
    try:
        told = await aws.call("sqs", "get_queue_attributes", QueueUrl=await names.queue_url(queue), AttributeNames=[_DEPTHS[0]])
    except (PermanentError, ConfigurationError) as error:
        _log.warning("dead_letter_queue_unknown", queue=queue, error=str(error))
        return math.nan
    return int(told["Attributes"].get(_DEPTHS[0], 0))
