"""A queue of SQS that dead messages lie in: one that SQS moves them to, or MassTransit's `_error` and `_skipped`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid5

import structlog

from bridge.aws.access import Aws
from bridge.aws.names import Names, is_fifo, short_name
from bridge.aws.payloads import Payloads, plain_attributes
from bridge.dead.port import DeadMessage, contents_of
from bridge.envelopes import masstransit
from bridge.errors import BridgeError, ConfigurationError, PermanentError, PoisonError

_log = structlog.get_logger()
_REPLAYS = UUID("5e0b2f63-8f0e-5c57-9a39-3a2b1d0c7f42")
# What is looked at is hidden from others for so long, in seconds; given back as soon as the look is over.
_HIDDEN_SECONDS = 300
_MOST_A_BATCH = 10
_WAIT_SECONDS = 1
# So many answers in a row that tell that nothing is left of what was there at the beginning: SQS gives messages in no order.
_MOST_LATE_ANSWERS = 5
_SUFFIXES = ("_error", "_skipped", "-dlq", "_dlq", "-dead-letter", "-deadletter")


class SqsDeadQueue:
    """Messages of one queue. Opened, and closed: then what was looked at and not sent again is given back.

    Of a FIFO queue SQS shows at most ten messages of a group at once.
    """

    def __init__(self, aws: Aws, queue: str, *, payloads: Payloads, reopen: Callable[[str], Awaitable[bool]]) -> None:
        """`queue`: by name or URL. `reopen`: lets the failed job of a key be claimed anew."""
        self._aws = aws
        self._queue = queue
        self._names = Names(aws)
        self._payloads = payloads
        self._reopen = reopen
        # As SQS gave them, by id.
        self._held: dict[str, Mapping[str, Any]] = {}
        self._sources: list[str] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        held = list(self._held.values())
        for start in range(0, len(held), _MOST_A_BATCH):
            await self._give_back(held[start : start + _MOST_A_BATCH])

    async def browse(self) -> AsyncIterator[DeadMessage]:
        """Each of them once, about the oldest first. Raises `TransientError`, `ConfigurationError`.

        What was sent after the look began is left out: what is sent again may die again at once, and would come round for ever.
        """
        seen: set[str] = set()
        until, passed, late = 0.0, 0, 0
        while late < _MOST_LATE_ANSWERS:
            answer = await self._received()
            messages = answer.get("Messages", ())
            if not messages:
                return
            until = until or _second_after(answer)
            # All are held before the first is told: whoever has enough leaves in between. One that comes again has a newer receipt.
            self._held.update({message["MessageId"]: message for message in messages})
            fresh = [message for message in messages if message["MessageId"] not in seen and _sent_at(message) <= until]
            seen |= {message["MessageId"] for message in fresh}
            passed += len(messages) - len(fresh)
            # All that was told may have died again, and lie before the rest: while no more have come, a full answer of such tells nothing.
            tells = len(messages) < _MOST_A_BATCH or passed > len(seen)
            late = 0 if fresh else late + tells
            for message in fresh:
                yield await self._message(message)

    async def replay(self, message: DeadMessage, *, to: str = "") -> str:
        """Send one again, and delete it once SQS has confirmed that; returns the queue that it went to.

        Raises `PermanentError`, `TransientError`, `ConfigurationError`.
        """
        target = to or message.destination
        if not target:
            raise PermanentError(f"nothing tells which queue {message.id} came from; name one by --to")
        raw = self._held[message.id]
        if message.contents.job_key:
            await self._reopen(message.contents.job_key)
        await self._aws.call("sqs", "send_message", QueueUrl=await self._names.queue_url(target), **_sent_again(raw, target, self._queue))
        url = await self._names.queue_url(self._queue)
        await self._aws.call("sqs", "delete_message", QueueUrl=url, ReceiptHandle=raw["ReceiptHandle"])
        del self._held[message.id]
        return short_name(target)

    async def _received(self) -> Mapping[str, Any]:
        return await self._aws.call(
            "sqs",
            "receive_message",
            QueueUrl=await self._names.queue_url(self._queue),
            MaxNumberOfMessages=_MOST_A_BATCH,
            WaitTimeSeconds=_WAIT_SECONDS,
            VisibilityTimeout=_HIDDEN_SECONDS,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )

    async def _message(self, raw: Mapping[str, Any]) -> DeadMessage:
        attributes = plain_attributes(raw.get("MessageAttributes", {}))
        try:
            body, attributes = await self._payloads.unpack(raw["Body"], attributes)
        except (PoisonError, ConfigurationError):
            body = raw["Body"].encode()
        system = raw.get("Attributes", {})
        return DeadMessage(
            id=raw["MessageId"],
            source="sqs",
            queue=short_name(self._queue),
            destination=await self._source_of(raw, attributes),
            message_id=raw["MessageId"],
            contents=contents_of(body, attributes),
            reason=_reason(system, attributes),
            died_at=masstransit.died_at(attributes) or _sent_at(raw) or time.time(),
            body=body,
            attributes=attributes,
        )

    async def _source_of(self, raw: Mapping[str, Any], attributes: Mapping[str, str]) -> str:
        """The queue that a message came from; empty when nothing tells."""
        told = raw.get("Attributes", {}).get("DeadLetterQueueSourceArn") or masstransit.input_address(attributes)
        if told:
            return short_name(told.partition("?")[0])
        if self._sources is None:
            self._sources = await self._redriving()
        return self._sources[0] if len(self._sources) == 1 else ""

    async def _redriving(self) -> list[str]:
        """Queues that SQS moves to this one, else the one that its name speaks of, if it is there."""
        url = await self._names.queue_url(self._queue)
        try:
            told = await self._aws.call("sqs", "list_dead_letter_source_queues", QueueUrl=url)
        except (ConfigurationError, PermanentError) as error:
            _log.info("sources_unknown", queue=self._queue, error=str(error))
            told = {}
        if found := [short_name(each) for each in told.get("queueUrls", ())]:
            return found
        name = short_name(self._queue)
        plain, fifo = name.removesuffix(".fifo"), ".fifo" if is_fifo(name) else ""
        for suffix in _SUFFIXES:
            if plain.endswith(suffix) and await self._exists(plain.removesuffix(suffix) + fifo):
                return [plain.removesuffix(suffix) + fifo]
        return []

    async def _exists(self, queue: str) -> bool:
        try:
            await self._names.queue_url(queue)
        except (ConfigurationError, PermanentError):
            return False
        return True

    async def _give_back(self, messages: list[Mapping[str, Any]]) -> None:
        url = await self._names.queue_url(self._queue)
        entries = [{"Id": str(n), "ReceiptHandle": each["ReceiptHandle"], "VisibilityTimeout": 0} for n, each in enumerate(messages)]
        try:
            await self._aws.call("sqs", "change_message_visibility_batch", QueueUrl=url, Entries=entries)
        except BridgeError as error:
            # They come back by themselves.
            _log.warning("give_back_failed", queue=self._queue, hidden_seconds=_HIDDEN_SECONDS, error=str(error))


def _sent_at(raw: Mapping[str, Any]) -> float:
    """When a message was sent to the queue that it lies in, or died in; 0 where SQS does not tell."""
    return int(raw.get("Attributes", {}).get("SentTimestamp", 0)) / 1000


def _second_after(answer: Mapping[str, Any]) -> float:
    """When SQS gave an answer, by its own clock, which it tells in whole seconds; by ours where it does not."""
    told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(told).timestamp() + 1
    except ValueError:
        return time.time() + 1


def _reason(system: Mapping[str, str], attributes: Mapping[str, str]) -> str:
    if told := masstransit.error_text(attributes):
        return told
    return f"delivered {system['ApproximateReceiveCount']} times" if "DeadLetterQueueSourceArn" in system else ""


def _sent_again(raw: Mapping[str, Any], target: str, queue: str) -> dict[str, Any]:
    """As it was sent at first, without what was added when it died."""
    kept = {name: value for name, value in raw.get("MessageAttributes", {}).items() if not masstransit.is_of_an_error(name)}
    sent: dict[str, Any] = {"MessageBody": raw["Body"], "MessageAttributes": kept}
    if is_fifo(short_name(target)):
        system = raw.get("Attributes", {})
        sent["MessageGroupId"] = system.get("MessageGroupId", raw["MessageId"])
        # The same for every try to send it again, and another than that of its first life.
        sent["MessageDeduplicationId"] = str(uuid5(_REPLAYS, f"{short_name(queue)}/{raw['MessageId']}"))
    return sent
