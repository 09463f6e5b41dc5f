"""Results into queues of SQS."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from bridge.aws.access import Aws
from bridge.aws.batches import Batches
from bridge.aws.names import Names, is_fifo, short_name
from bridge.aws.payloads import Payloads, wire_attributes, wire_size
from bridge.job import Message
from bridge.sinks.identified import identified

# Known from the queue itself; sent in their own places.
_OWN_PLACES = ("MessageGroupId", "MessageDeduplicationId")


class SqsQueues:
    """Sends bodies to queues, in batches."""

    def __init__(self, aws: Aws, *, payloads: Payloads | None = None) -> None:
        self._aws = aws
        self._names = Names(aws)
        self._payloads = payloads or Payloads(aws)
        self._batches: dict[str, Batches] = {}

    async def dead_letter_queue(self, queue: str) -> str:
        """The name of the queue that SQS moves a queue's dead messages to; empty where it has none. Raises as `Aws.call` does."""
        return await self._names.dead_letter_queue(queue)

    async def send(self, queue: str, body: bytes, *, message_id: str, group: str = "", attributes: Mapping[str, str] | None = None) -> None:
        """Send to a queue, given by name or URL. `group`: what a FIFO queue keeps in order. Raises as `Aws.call` does."""
        url = await self._names.queue_url(queue)
        plain = {name: value for name, value in (attributes or {}).items() if name not in _OWN_PLACES}
        text, packed = await self._payloads.pack(message_id, body, plain, room=partial(self._names.most_bytes, queue))
        entry: dict[str, Any] = {"MessageBody": text, "MessageAttributes": wire_attributes(packed)}
        if is_fifo(short_name(queue)):
            entry |= {"MessageGroupId": _identifier(group or message_id), "MessageDeduplicationId": _identifier(message_id)}
        batches = self._batches.setdefault(url, Batches(self._aws, "send_message_batch", url))
        await batches.add(entry, size=wire_size(text, packed))


class SqsSink:
    """Sends each message to its queue, under its id as the attribute `MessageId`; a FIFO queue drops what it has had already."""

    def __init__(self, queues: SqsQueues, *, queue: str = "results") -> None:
        """`queue`: takes the messages that name no destination."""
        self._queues = queues
        self._queue = queue

    async def send(self, message: Message) -> None:
        """Send, and return once SQS has it. Raises `TransientError`, `PermanentError`, `ConfigurationError`."""
        await self._queues.send(
            message.destination or self._queue,
            message.body,
            message_id=message.message_id,
            group=message.job_key,
            attributes=identified(message),
        )


def _identifier(text: str) -> str:
    """What SQS takes as an id of a group or a message: 128 characters of a few kinds."""
    safe = "".join(character if character.isascii() and (character.isalnum() or character in "-_.:") else "_" for character in text)
    return safe[-128:]
