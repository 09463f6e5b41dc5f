"""Results to topics of SNS."""

from __future__ import annotations

from typing import Any

from bridge.aws.access import Aws
from bridge.aws.names import MOST_BYTES_EVERYWHERE, Names, is_fifo
from bridge.aws.payloads import wire_attributes, wire_size
from bridge.errors import PermanentError
from bridge.job import Message
from bridge.sinks.identified import identified

# A subscription with raw delivery drops, without a word, messages with more.
_MOST_ATTRIBUTES = 10


class SnsSink:
    """Publishes each message to its topic, under its id as the attribute `MessageId`."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._names = Names(aws)

    async def send(self, message: Message) -> None:
        """Publish, and return once SNS has it. Raises `TransientError`, `PermanentError`, `ConfigurationError`."""
        if not (topic := message.destination):
            raise PermanentError(f"the message {message.message_id} names no topic, and none is set")
        attributes = identified(message)
        if len(attributes) > _MOST_ATTRIBUTES:
            raise PermanentError(f"the message has {len(attributes)} attributes; raw subscriptions drop those with more than 10.")
        try:
            text = message.body.decode()
        except UnicodeDecodeError as error:
            raise PermanentError("the message is no text; SNS carries text only.") from error
        if (size := wire_size(text, attributes)) > MOST_BYTES_EVERYWHERE:
            raise PermanentError(f"the message has {size} bytes with its attributes; at most {MOST_BYTES_EVERYWHERE} go through SNS.")
        order: dict[str, Any] = {}
        if is_fifo(topic):
            order = {"MessageGroupId": message.job_key[-128:], "MessageDeduplicationId": message.message_id}
        arn = await self._names.topic_arn(topic)
        await self._aws.call("sns", "publish", TopicArn=arn, Message=text, MessageAttributes=wire_attributes(attributes), **order)
