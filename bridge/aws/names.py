"""Finds queues and topics by their names."""

from __future__ import annotations

import json
import math

import structlog

from bridge.aws.access import Aws
from bridge.errors import ConfigurationError, PermanentError

_log = structlog.get_logger()
# What SQS and SNS have always taken, of body and attributes together. Since 2025 a queue may take up to 1 MiB, by its MaximumMessageSize.
MOST_BYTES_EVERYWHERE = 262_144


def short_name(queue: str) -> str:
    """The name of a queue that is given by its name, URL or ARN."""
    return queue.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]


def is_fifo(name: str) -> bool:
    """Whether a queue or topic keeps order; its name tells."""
    return name.endswith(".fifo")


def neighbour(queue: str, suffix: str) -> str:
    """The name of a queue's neighbour: jobs_error, jobs_error.fifo."""
    name = short_name(queue)
    return f"{name.removesuffix('.fifo')}{suffix}{'.fifo' if is_fifo(name) else ''}"


def most_receipts(policy: str) -> float:
    """After how many receipts SQS moves a message away, by a RedrivePolicy; infinity without one."""
    return float(json.loads(policy or "{}").get("maxReceiveCount", math.inf))


def dead_letter_queue(policy: str) -> str:
    """The name of the queue that a RedrivePolicy names; empty without one."""
    return short_name(json.loads(policy or "{}").get("deadLetterTargetArn", ""))


class Names:
    """Remembers what it has found."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._urls: dict[str, str] = {}
        self._owner: tuple[str, str] | None = None

    async def queue_url(self, queue: str) -> str:
        """The URL of a queue, given by name or URL. Raises `ConfigurationError` when there is none."""
        if "://" in queue:
            return queue
        if queue not in self._urls:
            self._urls[queue] = (await self._aws.call("sqs", "get_queue_url", QueueName=short_name(queue)))["QueueUrl"]
        return self._urls[queue]

    async def dead_letter_queue(self, queue: str) -> str:
        """The name of the queue that SQS moves a queue's dead messages to; empty where it has none. Raises as `Aws.call` does."""
        return dead_letter_queue(await self.redrive_policy(queue))

    async def redrive_policy(self, queue: str) -> str:
        """What SQS does about messages that are received again and again, as JSON; empty for nothing. Raises as `Aws.call` does."""
        answer = await self._aws.call("sqs", "get_queue_attributes", QueueUrl=await self.queue_url(queue), AttributeNames=["RedrivePolicy"])
        return str(answer.get("Attributes", {}).get("RedrivePolicy", ""))

    async def most_bytes(self, queue: str) -> int:
        """The largest message that a queue takes, attributes included, by its own account; what every queue takes where it does not tell.

        Asked each time, so that what waits goes once somebody has allowed the queue more. Raises `TransientError`.
        """
        url = await self.queue_url(queue)
        try:
            answer = await self._aws.call("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["MaximumMessageSize"])
        except (PermanentError, ConfigurationError) as error:
            _log.warning("largest_message_unknown", queue=short_name(queue), error=str(error))
            return MOST_BYTES_EVERYWHERE
        return int(answer.get("Attributes", {}).get("MaximumMessageSize", MOST_BYTES_EVERYWHERE))

    async def topic_arn(self, topic: str) -> str:
        """The ARN of a topic, given by name or ARN."""
        return topic if topic.startswith("arn:") else await self.arn("sns", topic)

    async def arn(self, service: str, name: str) -> str:
        """The ARN of something in our own account and region."""
        if self._owner is None:
            identity = await self._aws.call("sts", "get_caller_identity")
            self._owner = (identity["Arn"].split(":")[1], identity["Account"])
        partition, account = self._owner
        return f"arn:{partition}:{service}:{self._aws.access.region}:{account}:{name}"
