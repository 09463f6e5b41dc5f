"""Puts sources and sinks together, as the settings name them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from bridge.aws.access import Aws, AwsAccess
from bridge.aws.names import Names, short_name
from bridge.aws.payloads import PayloadPlace, Payloads
from bridge.aws.topology import Topology
from bridge.brokers import open_brokers
from bridge.envelopes import masstransit
from bridge.errors import PermanentError
from bridge.job import Job, Message
from bridge.ledger.port import DeadLetter, JobRecord, State
from bridge.settings import Settings
from bridge.sinks.port import Sink
from bridge.sinks.routed import RoutedSink
from bridge.sinks.sns import SnsSink
from bridge.sinks.sqs import SqsQueues, SqsSink
from bridge.sinks.sqs_errors import SqsErrorQueues
from bridge.sources.sqs import SqsSource
from bridge.systems.wsi import requests
from bridge.systems.wsi.requests import AnswerNames
from bridge.transport import Transport
from bridge.worker.burial import Burial

_DEPTHS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed")


@asynccontextmanager
async def open_transport(settings: Settings, *, local: Transport) -> AsyncIterator[Transport]:
    """The transport that is set; `local` is the embedded one, and takes what is sent to `local:…`."""
    async with open_aws(settings) as aws, open_brokers(settings) as brokers:
        # boto3 is loaded by the first call, so these cost nothing where AWS is not used.
        queues = SqsQueues(aws, payloads=payloads(aws, settings))
        sqs = SqsSink(queues, queue=settings.results_queue)
        schemes: Mapping[str, Sink] = {"local": local.sink, "sqs": sqs, "sns": SnsSink(aws), **brokers.sinks}
        if not settings.sqs_queues:
            place = brokers.broker or local
            yield Transport(source=place.source, sink=RoutedSink(place.sink, schemes), dead_letters=local.dead_letters, depth=place.depth)
            return
        source = SqsSource(
            aws,
            settings.sqs_queues,
            lease_seconds=settings.lease_seconds,
            payloads=payloads(aws, settings),
            urgent_in_a_row=settings.sqs_urgent_in_a_row,
        )
        errors = SqsErrorQueues(queues, source=source.name, skips=requests.is_of_another_type)
        try:
            yield Transport(
                source=source,
                sink=RoutedSink(sqs, schemes),
                dead_letters=Burial(local.dead_letters, errors),
                depth=lambda: _depth(aws, settings),
            )
        finally:
            await source.close()


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
        role_arn=settings.aws_role_arn,
    )


def payloads(aws: Aws, settings: Settings) -> Payloads:
    """How bodies travel, and where large ones lie."""
    place = PayloadPlace(bucket=settings.sqs_payload_bucket, most_bytes=settings.sqs_payload_bytes)
    return Payloads(aws, place)


def object_options(settings: Settings) -> dict[str, str]:
    """How object storage reaches S3; what is empty it finds itself."""
    access = aws_access(settings)
    access_key, secret_key = access.keys
    options = {
        "region": settings.wsi_bucket_region or access.region,
        "endpoint": access.endpoint,
        "access_key_id": access_key,
        "secret_access_key": secret_key,
    }
    return {name: value for name, value in options.items() if value}


def topology(settings: Settings) -> Topology:
    """What there should be in SQS and SNS for these settings."""
    queues = list(settings.sqs_queues)
    if not settings.wsi_bucket:
        return Topology(queues=queues, outputs=[settings.results_queue] if queues else [])
    answers = AnswerNames()
    topics = [requests.REQUESTED_TOPIC, answers.completed_topic, answers.failed_topic]
    # Platforms publish to the first queue; plain requests come by the one named for them.
    events = next((queue for queue in queues if short_name(queue) != requests.PLAIN_QUEUE), "")
    plain = [answers.plain_queue] if any(short_name(queue) == requests.PLAIN_QUEUE for queue in queues) else []
    subscriptions = {events: [requests.REQUESTED_TOPIC]} if events else {}
    return Topology(queues=queues, outputs=[*plain, settings.results_queue], topics=topics, subscriptions=subscriptions)


def wsi_source(settings: Settings) -> str:
    """The slide worker's own address, as MassTransit writes it."""
    queue = short_name(settings.sqs_queues[0]) if settings.sqs_queues else "WsiAnalysisWorker"
    place = "localhost" if settings.aws_endpoint else settings.aws_region
    return "/".join(["amazonsqs:/", *(part for part in (place, settings.aws_scope, queue) if part)])


async def send_to_sqs(settings: Settings, job: Job, message: bytes) -> None:
    """Send a message that asks for a job to the first queue, or the last for one that can wait."""
    async with open_aws(settings) as aws:
        queue = settings.sqs_queues[0 if job.priority <= 0 else -1]
        await SqsQueues(aws, payloads=payloads(aws, settings)).send(queue, message, message_id=job.key, group=job.key)


async def resend_to_sqs(settings: Settings, letter: DeadLetter) -> None:
    """Send the bytes of a dead letter to the queue that they came from."""
    async with open_aws(settings) as aws:
        queues = SqsQueues(aws, payloads=payloads(aws, settings))
        # Under an id of its own: a FIFO queue would drop what it has had.
        own = f"{letter.message_id}.{secrets.token_hex(4)}"
        group = letter.attributes.get("MessageGroupId", "")
        await queues.send(letter.queue, letter.body, message_id=own, group=group, attributes=letter.attributes)


async def republish(settings: Settings, record: JobRecord) -> str:
    """Tell the platform of an ended job once more, under a new message id; returns that id. Raises `PermanentError`."""
    result = record.result or {}
    if record.system != requests.SYSTEM or record.state not in {State.SUCCEEDED, State.FAILED}:
        stands = f"the job {record.key} is {record.state.value} and of the system {record.system}"
        raise PermanentError(f"{stands}; only an ended job of {requests.SYSTEM} has an answer")
    job = Job(key=record.key, system=record.system, request=record.request)
    names = AnswerNames(source=wsi_source(settings))
    succeeded = record.state is State.SUCCEEDED
    events = requests.completed(job, result["result_s3_key"], names) if succeeded else requests.failed(job, str(result["reason"]), names)
    if not events or not events[0].destination.startswith("sns:"):
        raise PermanentError(f"the job {record.key} was not asked for by an event, so that none answers it")
    message_id, body = masstransit.republished(events[0].body)
    async with open_aws(settings) as aws:
        message = Message(
            message_id=message_id,
            job_key=job.key,
            type=events[0].type,
            destination=events[0].destination.removeprefix("sns:"),
            body=body,
            attributes=events[0].attributes,
        )
        await SnsSink(aws).send(message)
    return message_id


async def _depth(aws: Aws, settings: Settings) -> int:
    total = 0
    names = Names(aws)
    for queue in settings.sqs_queues:
        url = await names.queue_url(queue)
        told = await aws.call("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=list(_DEPTHS))
        total += sum(int(told["Attributes"].get(name, 0)) for name in _DEPTHS)
    return total
