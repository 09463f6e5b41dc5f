"""Jobs from subscriptions of Pub/Sub, by streaming pull."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

import structlog

from bridge.errors import BridgeError, ConfigurationError, LeaseLostError
from bridge.google.intake import Intake
from bridge.google.pulled import Patience, Pulled
from bridge.job import Delivery
from bridge.sources.port import QueueLevel
from bridge.sources.turns import Turns

if TYPE_CHECKING:
    from bridge.google.access import PubsubAccess

_log = structlog.get_logger()
# Pub/Sub takes no longer lease in one go. The heartbeat renews at a third of a lease.
LONGEST_LEASE_SECONDS = 600
# A stream that was just opened gets a moment to show what it has, before there is nothing.
_LEAST_WAIT_SECONDS = 0.3
# Nothing has come for so long: there is nothing. Pub/Sub itself does not tell.
_QUIET_SECONDS = 5.0


class PubsubSource:
    """Delivers the messages of one subscription or several, the first of them before the others.

    No more messages are out than were asked for. Those of one ordering key come one after the other.
    """

    name = "pubsub"

    def __init__(
        self,
        access: PubsubAccess,
        subscriptions: Sequence[str],
        *,
        lease_seconds: float,
        urgent_in_a_row: int = 8,
        patience: Patience | None = None,
    ) -> None:
        """`subscriptions`: the most urgent first. `urgent_in_a_row`: after so many messages of one, the next gets its turn.

        Raises `ConfigurationError`.
        """
        _check(subscriptions, lease_seconds)
        self._access = access
        self._turns = Turns(subscriptions, in_a_row=urgent_in_a_row)
        self._lease_seconds = lease_seconds
        self._patience = patience or Patience()
        self._changed = asyncio.Event()
        self._intakes = {
            subscription: Intake(access, subscription, lease_seconds=lease_seconds, patience=self._patience, changed=self._changed.set)
            for subscription in subscriptions
        }
        # One receiver at a time, so that no stream is opened for what another has asked for.
        self._receiving = asyncio.Lock()
        self._receivers = 0
        self._lingering: asyncio.TimerHandle | None = None
        # Why the newest look at the subscriptions failed; None when it did not.
        self._failure: BridgeError | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End the streams and give back what nobody has taken; takes a few seconds at most."""
        if self._lingering is not None:
            self._lingering.cancel()
        await asyncio.gather(*(intake.close() for intake in self._intakes.values()), *self._tasks)

    async def depth(self) -> int:
        """How many messages wait here, for a receiver or a later try; 1 while some came a moment ago. Pub/Sub tells not what it has."""
        waiting = sum(intake.waiting + (0 if math.isnan(intake.kept) else int(intake.kept)) for intake in self._intakes.values())
        quiet = min(intake.quiet_for() for intake in self._intakes.values()) > _QUIET_SECONDS
        return waiting or int(not quiet)

    async def levels(self) -> Sequence[QueueLevel]:
        """What has come here and waits. Pub/Sub tells a client nothing of what it has not sent yet."""
        return [
            QueueLevel(queue=name, waiting=intake.waiting, leased=math.nan, delayed=intake.kept, oldest_seconds=intake.oldest_seconds())
            for name, intake in self._intakes.items()
        ]

    async def probe(self) -> None:
        """Raise why the subscriptions could not be pulled from at the newest try."""
        if self._failure is not None:
            raise self._failure

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """At most `limit` deliveries; empty when none came in time. Raises why no stream can be opened."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        self._receivers += 1
        if self._lingering is not None:
            self._lingering.cancel()
        try:
            async with self._receiving:
                return await self._receive(limit, deadline)
        finally:
            self._receivers -= 1
            if not self._receivers and self._patience.linger_seconds <= 0:
                await asyncio.gather(*(intake.end_stream() for intake in self._intakes.values()))
            elif not self._receivers:
                # Whoever asks again soon finds the streams open; a worker with no free slot leaves the messages to others.
                self._lingering = loop.call_later(self._patience.linger_seconds, self._end_streams)

    async def renew(self, delivery: Delivery, *, lease_seconds: float) -> None:
        """Prolong the lease. Raises `LeaseLostError` when exactly-once delivery says that the receipt is stale."""
        self._intakes[delivery.queue].renewed(delivery.receipt)
        if await self._access.prolong(delivery.queue, [delivery.receipt], seconds=_whole(lease_seconds)):
            self._intakes[delivery.queue].settled(delivery.receipt)
            raise LeaseLostError(f"the message {delivery.message_id} was delivered again, or is gone")

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take the message off the subscription, and return once Pub/Sub has confirmed it; harmless when it is gone."""
        try:
            await self._access.acknowledge(delivery.queue, delivery.receipt)
        except LeaseLostError:
            _log.info("acknowledged_late", message_id=delivery.message_id)
        self._intakes[delivery.queue].settled(delivery.receipt)

    async def release(self, delivery: Delivery, *, delay_seconds: float, tried: bool = True) -> None:
        """Give the message back, to be delivered again after the delay; harmless when the receipt is stale.

        Where a dead-letter policy counts each return, it is kept here under lease until then. Else those behind it with the same
        ordering key go back with it: Pub/Sub sends them again in their order.
        """
        intake = self._intakes[delivery.queue]
        if await intake.keep(delivery.receipt, seconds=delay_seconds):
            return
        delay = _whole(delay_seconds)
        followers = intake.withdraw_followers(delivery.receipt)
        lost = await self._access.prolong(delivery.queue, [delivery.receipt, *followers], seconds=delay)
        for receipt in (delivery.receipt, *followers):
            intake.given_back(receipt, delay_seconds=delay)
        if delivery.receipt in lost:
            _log.info("released_late", message_id=delivery.message_id)

    async def _receive(self, limit: int, deadline: float) -> list[Delivery]:
        clock = asyncio.get_running_loop().time
        while True:
            self._changed.clear()
            failures = [failure for intake in self._intakes.values() if (failure := await _failure_of(intake.want(limit)))]
            self._failure = failures[0] if failures else None
            if found := await self._take(limit):
                return found
            if failures:
                raise failures[0]
            left = max(deadline - clock(), *(intake.settling(_LEAST_WAIT_SECONDS) for intake in self._intakes.values()))
            if left <= 0:
                return []
            # Streams that were just opened are looked at again when they have had their moment.
            await _wait(self._changed, min([left, *(seconds for seconds in self._settling() if seconds > 0)]))

    async def _take(self, limit: int) -> list[Delivery]:
        """What the first subscription that has anything has got."""
        for subscription in self._turns.order():
            intake = self._intakes[subscription]
            if pulled := intake.take(limit):
                valid = await self._secure(subscription, pulled)
                self._turns.served(subscription, len(valid))
                if valid:
                    return [self._delivery(subscription, message) for message in valid]
            elif self._several and intake.settling(self._patience.settle_seconds) > 0:
                return []
        return []

    async def _secure(self, subscription: str, pulled: Sequence[Pulled]) -> list[Pulled]:
        """Give each its full lease, where it has waited here or had a longer one; what was lost meanwhile is left out."""
        waited = [message.ack_id for message in pulled if not message.fresh(self._lease_seconds)]
        if not waited:
            return list(pulled)
        intake = self._intakes[subscription]
        try:
            lost = await self._access.prolong(subscription, waited, seconds=_whole(self._lease_seconds))
        except BaseException:
            intake.put_back(pulled)
            raise
        for ack_id in lost:
            intake.settled(ack_id)
        return [message for message in pulled if message.ack_id not in lost]

    @property
    def _several(self) -> bool:
        return self._turns.several

    def _settling(self) -> list[float]:
        return [intake.settling(self._patience.settle_seconds) for intake in self._intakes.values()] if self._several else []

    def _end_streams(self) -> None:
        for intake in self._intakes.values():
            task = asyncio.ensure_future(intake.end_stream())
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), BridgeError):
            _log.warning("stream_not_ended", error=str(error))

    def _delivery(self, subscription: str, message: Pulled) -> Delivery:
        order = {"OrderingKey": message.ordering_key} if message.ordering_key else {}
        return Delivery(
            source=self.name,
            queue=subscription,
            message_id=message.message_id,
            receipt=message.ack_id,
            body=message.body,
            attributes={**message.attributes, **order},
            receive_count=max(1, message.deliveries) + message.kept,
        )


def _check(subscriptions: Sequence[str], lease_seconds: float) -> None:
    if not subscriptions:
        raise ConfigurationError("BRIDGE_PUBSUB_SUBSCRIPTIONS names no subscription; name at least one, such as jobs-sub")
    if lease_seconds > LONGEST_LEASE_SECONDS:
        raise ConfigurationError(
            f"BRIDGE_LEASE_SECONDS: Pub/Sub leases a message for {LONGEST_LEASE_SECONDS} s at most, not {lease_seconds:g}; "
            "leases are renewed for as long as a job runs, so that a shorter one does no harm"
        )


async def _failure_of(opening: Awaitable[None]) -> BridgeError | None:
    try:
        await opening
    except BridgeError as error:
        return error
    return None


def _whole(seconds: float) -> int:
    """Pub/Sub counts whole seconds."""
    return max(0, min(LONGEST_LEASE_SECONDS, math.ceil(seconds)))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
