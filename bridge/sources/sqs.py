"""Jobs from queues of SQS."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import structlog

from bridge.aws.access import Aws
from bridge.aws.batches import Batches
from bridge.aws.names import Names, is_fifo, short_name
from bridge.aws.payloads import Payloads, plain_attributes
from bridge.aws.receipt_limits import ReceiptLimits
from bridge.errors import BridgeError, ConfigurationError, LeaseLostError, PermanentError, PoisonError
from bridge.job import UNREADABLE, Delivery
from bridge.sources.freshness import Freshness
from bridge.sources.turns import Turns

_log = structlog.get_logger()
# What SQS gives at once, and how long it lets one wait.
_MOST_A_BATCH = 10
_LONGEST_POLL = 20
# With several queues the others are looked at so often while the first is waited on.
_SLICE_SECONDS = 1.0
# SQS hides a message for 12 h from its receipt and not longer.
_HIDDEN_SECONDS = 12 * 3600
RENEWED_SECONDS = 11.5 * 3600
_SYSTEM_ATTRIBUTES = ("MessageGroupId", "MessageDeduplicationId")


@dataclass(kw_only=True)
class _Held:
    """A message that we have. Delivered again to us, it takes on the newer receipt."""

    receipt: str
    # By the monotonic clock, of the newest receipt.
    received_at: float
    # When somebody was seen to work on it: the first receipt, and then each time that the lease was to be renewed, with success or not.
    seen_at: float


class SqsSource:
    """Delivers the messages of one queue or several, the first of them before the others."""

    name = "sqs"

    def __init__(
        self,
        aws: Aws,
        queues: Sequence[str],
        *,
        lease_seconds: float,
        payloads: Payloads | None = None,
        urgent_in_a_row: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`queues`: names or URLs, the most urgent first. `urgent_in_a_row`: after so many messages of one, the next gets its turn."""
        if not queues:
            raise ConfigurationError("BRIDGE_SQS_QUEUES names no queue")
        self._aws = aws
        self._names = Names(aws)
        self._turns = Turns(queues, in_a_row=urgent_in_a_row)
        self._lease_seconds = lease_seconds
        self._payloads = payloads or Payloads(aws)
        self._clock = clock
        # What the messages that came tell of those that wait.
        self.freshness = Freshness()
        # By queue and message id.
        self._held: dict[tuple[str, str], _Held] = {}
        self._batches: dict[tuple[str, str], Batches] = {}
        self._limits = ReceiptLimits(self._names, clock=clock)
        # Polls whose receivers are gone, and what they brought on its way back.
        self._orphans: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Wait until what abandoned polls have brought is given back."""
        while self._orphans:
            await asyncio.wait(set(self._orphans))

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """At most `limit` deliveries; empty when none came in time."""
        deadline = self._clock() + wait_seconds
        first = self._turns.most_urgent
        while True:
            if self._turns.several and (found := await self._look_around(limit)):
                return found
            left = max(0.0, deadline - self._clock())
            wait = min(left, _SLICE_SECONDS) if self._turns.several else left
            if found := await self._receive_from(first, limit=limit, wait_seconds=wait):
                self._turns.served(first, len(found))
                return found
            if self._clock() >= deadline:
                self.freshness.nothing()
                return ()

    async def renew(self, delivery: Delivery, *, lease_seconds: float) -> None:
        """Prolong the queue's own lease, until 11.5 h after the receipt; then the message is left to come back.

        Raises `LeaseLostError` when the receipt is stale.
        """
        held = self._held.get(_key(delivery))
        if held:
            held.seen_at = self._clock()
        left = RENEWED_SECONDS - (self._clock() - held.received_at) if held else RENEWED_SECONDS
        if left <= 0:
            return
        await self._hide(delivery.queue, held.receipt if held else delivery.receipt, min(lease_seconds, left))

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take the message off the queue; harmless when it is gone."""
        held = self._held.pop(_key(delivery), None)
        batches = await self._batch(delivery.queue, "delete_message_batch")
        try:
            await batches.add({"ReceiptHandle": held.receipt if held else delivery.receipt})
        except LeaseLostError:
            _log.info("acknowledged_late", message_id=delivery.message_id)

    async def release(self, delivery: Delivery, *, delay_seconds: float, tried: bool = True) -> None:
        """Give the message back, to be delivered again after the delay; harmless when the receipt is stale.

        Where SQS gives messages up after few receipts, a delay is no shorter than a lease.
        """
        held = self._held.pop(_key(delivery), None)
        age = self._clock() - held.received_at if held else 0.0
        if delay_seconds and await self._limits.are_few(delivery.queue):
            # Its receipts must last for a while: a wait is no failure.
            delay_seconds = max(delay_seconds, self._lease_seconds)
        delay = min(delay_seconds, max(0.0, _HIDDEN_SECONDS - age - 1))
        try:
            await self._hide(delivery.queue, held.receipt if held else delivery.receipt, delay)
        except LeaseLostError:
            _log.info("released_late", message_id=delivery.message_id)

    async def _look_around(self, limit: int) -> list[Delivery]:
        """What lies in the first queue that has anything, without waiting."""
        for queue in self._turns.order():
            if found := await self._receive_from(queue, limit=limit, wait_seconds=0):
                self._turns.served(queue, len(found))
                return found
        return []

    async def _receive_from(self, queue: str, *, limit: int, wait_seconds: float) -> list[Delivery]:
        if not is_fifo(short_name(queue)):
            return await self._poll(queue, limit=min(limit, _MOST_A_BATCH), wait_seconds=wait_seconds)
        # In order means one at a time: SQS gives nothing more of a group while a message of it is out, but may give several at once.
        found = await self._poll(queue, limit=1, wait_seconds=wait_seconds)
        try:
            while found and len(found) < limit and (more := await self._poll(queue, limit=1, wait_seconds=0)):
                found += more
        except BaseException:
            for delivery in reversed(found):
                self._adopt(asyncio.ensure_future(self.release(delivery, delay_seconds=0)))
            raise
        return found

    async def _poll(self, queue: str, *, limit: int, wait_seconds: float) -> list[Delivery]:
        """One call. When we are cancelled meanwhile, what it brings is given back: the call itself cannot be taken back."""
        poll = asyncio.ensure_future(self._call(queue, limit=limit, wait_seconds=wait_seconds))
        try:
            messages = await asyncio.shield(poll)
        except asyncio.CancelledError:
            self._adopt(asyncio.ensure_future(self._return_of(queue, poll)))
            raise
        for message in messages:
            if (sent_at := _sent_at(message)) is not None:
                self.freshness.came(queue, sent_at)
        fresh = [message for message in messages if not self._known(queue, message)]
        delivering = asyncio.ensure_future(asyncio.gather(*(self._delivery(queue, message) for message in fresh)))
        try:
            deliveries = await asyncio.shield(delivering)
        except asyncio.CancelledError:
            self._adopt(asyncio.ensure_future(self._return_all(queue, fresh)))
            raise
        now = self._clock()
        self._held = {key: held for key, held in self._held.items() if self._is_worked_on(held)}
        for delivery in deliveries:
            if delivery is not None:
                self._held[_key(delivery)] = _Held(receipt=delivery.receipt, received_at=now, seen_at=now)
        return [delivery for delivery in deliveries if delivery is not None]

    async def _call(self, queue: str, *, limit: int, wait_seconds: float) -> list[dict[str, Any]]:
        url = await self._names.queue_url(queue)
        once = {"ReceiveRequestAttemptId": str(uuid4())} if is_fifo(short_name(queue)) else {}
        answer = await self._aws.call(
            "sqs",
            "receive_message",
            QueueUrl=url,
            MaxNumberOfMessages=limit,
            WaitTimeSeconds=min(_LONGEST_POLL, math.ceil(max(0.0, wait_seconds))),
            VisibilityTimeout=_whole(self._lease_seconds),
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
            **once,
        )
        return list(answer.get("Messages", ()))

    def _known(self, queue: str, message: Mapping[str, Any]) -> bool:
        """Whether we have the message already; then the newer receipt counts, and the work on it goes on."""
        held = self._held.get((queue, message["MessageId"]))
        if held is None or not self._is_worked_on(held):
            return False
        held.receipt, held.received_at = message["ReceiptHandle"], self._clock()
        _log.info("receipt_adopted", message_id=message["MessageId"])
        return True

    def _is_worked_on(self, held: _Held) -> bool:
        """What was dropped, neither acknowledged nor released, as when the ledger is out of reach, is not; it must come again."""
        return self._clock() - held.seen_at <= self._lease_seconds

    async def _delivery(self, queue: str, message: Mapping[str, Any]) -> Delivery | None:
        system = message.get("Attributes", {})
        attributes = plain_attributes(message.get("MessageAttributes", {}))
        attributes |= {name: system[name] for name in _SYSTEM_ATTRIBUTES if name in system}
        try:
            body, attributes = await self._payloads.unpack(message["Body"], attributes)
        except PoisonError as error:
            body, attributes = message["Body"].encode(), {**attributes, UNREADABLE: str(error)}
        except BridgeError as error:
            # It comes again when its lease has run out.
            _log.warning("payload_out_of_reach", message_id=message["MessageId"], error=str(error))
            return None
        return Delivery(
            source=self.name,
            queue=queue,
            message_id=message["MessageId"],
            receipt=message["ReceiptHandle"],
            body=body,
            attributes=attributes,
            receive_count=int(system.get("ApproximateReceiveCount", 1)),
        )

    async def _hide(self, queue: str, receipt: str, seconds: float) -> None:
        batches = await self._batch(queue, "change_message_visibility_batch")
        try:
            await batches.add({"ReceiptHandle": receipt, "VisibilityTimeout": _whole(seconds)})
        except PermanentError as error:  # such as more than 12 h in all
            raise LeaseLostError(str(error)) from error

    async def _batch(self, queue: str, operation: str) -> Batches:
        url = await self._names.queue_url(queue)
        return self._batches.setdefault((url, operation), Batches(self._aws, operation, url))

    async def _return_of(self, queue: str, poll: asyncio.Future[list[dict[str, Any]]]) -> None:
        try:
            await self._return_all(queue, [message for message in await poll if not self._known(queue, message)])
        except BridgeError as error:
            _log.warning("abandoned_poll_failed", error=str(error))

    async def _return_all(self, queue: str, messages: Sequence[Mapping[str, Any]]) -> None:
        for message in messages:
            try:
                await self._hide(queue, message["ReceiptHandle"], 0)
            except BridgeError as error:
                _log.warning("return_failed", message_id=message["MessageId"], error=str(error))

    def _adopt(self, task: asyncio.Task[Any]) -> None:
        self._orphans.add(task)
        task.add_done_callback(self._orphans.discard)


def _key(delivery: Delivery) -> tuple[str, str]:
    return delivery.queue, delivery.message_id


def _sent_at(message: Mapping[str, Any]) -> float | None:
    sent = message.get("Attributes", {}).get("SentTimestamp")
    return int(sent) / 1000 if sent else None


def _whole(seconds: float) -> int:
    """SQS counts whole seconds; a lease is rather too long than too short."""
    return min(_HIDDEN_SECONDS, math.ceil(seconds))
