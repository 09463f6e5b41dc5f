"""What one subscription has given us."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from bridge.errors import BridgeError
from bridge.google.pulled import Patience, Pulled, pulled
from bridge.google.streams import Streams

if TYPE_CHECKING:
    from google.pubsub_v1.types import ReceivedMessage

    from bridge.google.access import PubsubAccess
    from bridge.google.stream import PullStream

_log = structlog.get_logger()
# What is given back for longer has its place filled meanwhile.
_LONG_DELAY_SECONDS = 5.0
# More are not fetched while so many wait for the one before them with their ordering key.
_MOST_WAITING = 32
# No more is kept here for later than so many messages and bytes.
_MOST_KEPT = 256
_MOST_KEPT_BYTES = 64 * 1024 * 1024


@dataclass(kw_only=True)
class _Taken:
    """A message that is worked on, or kept here for a later try."""

    message: Pulled
    # When it was taken or its lease renewed, by the loop's clock.
    seen_at: float
    # Makes it wait for a receiver again; None while it is worked on.
    timer: asyncio.TimerHandle | None = None


class Intake:
    """One subscription's messages: those that wait for a receiver, those that are worked on, and those that are kept for later."""

    def __init__(
        self, access: PubsubAccess, subscription: str, *, lease_seconds: float, patience: Patience, changed: Callable[[], None]
    ) -> None:
        """`changed`: called when messages have come or the stream has ended."""
        self._access = access
        self._subscription = subscription
        self._lease_seconds = lease_seconds
        self._patience = patience
        self._changed = changed
        self._streams = Streams(subscription, open_stream=self._open, close_seconds=patience.close_seconds)
        self._waiting: list[Pulled] = []
        # By acknowledgement id.
        self._taken: dict[str, _Taken] = {}
        # When a message came, or the first was asked for; None before that.
        self._last_arrival: float | None = None
        # Whether a dead-letter policy counts deliveries; False until a message has told.
        self._counted = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Messages that nobody has taken."""
        return len(self._waiting)

    @property
    def kept(self) -> float:
        """Messages that are kept here for later; NaN where such are given back, to come again."""
        return len(self._kept()) if self._counted else math.nan

    def oldest_seconds(self) -> float:
        """The age of the oldest that waits here; 0 when none does."""
        return max((max(0.0, time.time() - message.published_at) for message in self._waiting if message.published_at), default=0.0)

    def quiet_for(self) -> float:
        """Seconds since a message came; 0 before one was asked for."""
        return _now() - self._last_arrival if self._last_arrival is not None else 0.0

    def settling(self, seconds: float) -> float:
        """What is left of the moment that a new stream gets, in seconds."""
        return self._streams.settling(seconds)

    async def want(self, limit: int) -> None:
        """See to it that so many messages can come, no more than that. Raises why the last stream broke."""
        for ack_id in [ack_id for ack_id, taken in self._taken.items() if self._is_dropped(taken)]:
            self.settled(ack_id)
        if self._last_arrival is None:
            self._last_arrival = _now()
        at_hand = sum(self._takeable(message) for message in self._waiting)
        await self._streams.want(limit, at_hand=at_hand, more=len(self._waiting) < _MOST_WAITING)

    def take(self, limit: int) -> list[Pulled]:
        """At most so many messages, the oldest first, and of each ordering key one only."""
        found: list[Pulled] = []
        for message in list(self._waiting):
            if len(found) < limit and self._takeable(message):
                self._waiting.remove(message)
                self._taken[message.ack_id] = _Taken(message=message, seen_at=_now())
                found.append(message)
        return found

    def put_back(self, messages: Sequence[Pulled]) -> None:
        """Undo a `take`."""
        self._waiting[:0] = messages
        for message in messages:
            self._taken.pop(message.ack_id, None)

    def renewed(self, ack_id: str) -> None:
        """The lease of a message is to be renewed: somebody works on it."""
        if ack_id in self._taken:
            self._taken[ack_id].seen_at = _now()

    def settled(self, ack_id: str) -> None:
        """A message is acknowledged, given back or lost: its ordering key and its place are free."""
        self._streams.settled(ack_id)
        taken = self._taken.pop(ack_id, None)
        if taken is not None and taken.timer is not None:
            taken.timer.cancel()
        self._changed()

    def given_back(self, ack_id: str, *, delay_seconds: float) -> None:
        """A message comes again after so long. For Pub/Sub it is out until then."""
        if delay_seconds > _LONG_DELAY_SECONDS:
            self._streams.held(ack_id, seconds=delay_seconds)
            self._taken.pop(ack_id, None)
            self._changed()
        else:
            self.settled(ack_id)

    async def keep(self, ack_id: str, *, seconds: float) -> bool:
        """Keep a message under lease, and let it wait for a receiver again after so long.

        False where it is to be given back: nobody counts how often it is, or enough is kept. Raises what the lease's renewal raises.
        """
        taken = self._taken.get(ack_id)
        if taken is None or not taken.message.counted or seconds <= 0 or self._is_full(taken.message):
            return False
        if await self._access.prolong(self._subscription, [ack_id], seconds=round(max(1, self._lease_seconds))):
            _log.info("released_late", message_id=taken.message.message_id)
            self.settled(ack_id)
        elif ack_id in self._taken:
            taken.timer = asyncio.get_running_loop().call_later(seconds, self._due, ack_id)
            self._streams.held(ack_id, seconds=math.inf)
            self._see_to_leases()
            self._changed()
        return True

    def withdraw_followers(self, ack_id: str) -> list[str]:
        """Take away what waits behind a message with its ordering key; returns their ids."""
        key = self._taken[ack_id].message.ordering_key if ack_id in self._taken else ""
        followers = [message for message in self._waiting if key and message.ordering_key == key]
        self._waiting = [message for message in self._waiting if message not in followers]
        return [message.ack_id for message in followers]

    async def end_stream(self) -> None:
        """Let nothing more come. What waits is held for the next receiver."""
        await self._streams.end()

    async def close(self) -> None:
        """End the streams and give back what waits, and what is kept."""
        await self.end_stream()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        await self._return([*self._waiting, *self._kept()])

    def _open(self, capacity: int) -> PullStream:
        # Imported here, so that only a bridge on Pub/Sub loads Google's clients.
        from bridge.google.stream import PullStream

        return PullStream(
            self._access,
            self._subscription,
            capacity=capacity,
            lease_seconds=self._lease_seconds,
            silence_seconds=self._patience.silence_seconds,
            arrived=self._arrived,
            ended=self._changed,
        )

    def _arrived(self, messages: Sequence[ReceivedMessage]) -> None:
        now = self._last_arrival = _now()
        arrived = [pulled(received, arrived_at=now) for received in messages]
        self._counted = any(message.counted for message in arrived)
        self._forget_older({message.message_id for message in arrived})
        self._waiting += arrived
        self._see_to_leases()
        self._changed()

    def _forget_older(self, message_ids: set[str]) -> None:
        """What is delivered again is out no more under its older id. Whoever works on it has the ledger's word for it."""
        older = [
            message for message in [*self._waiting, *(taken.message for taken in self._taken.values())] if message.message_id in message_ids
        ]
        self._waiting = [message for message in self._waiting if message not in older]
        for message in older:
            self.settled(message.ack_id)

    def _due(self, ack_id: str) -> None:
        """What was kept waits for a receiver, before all that came after it."""
        message = self._taken.pop(ack_id).message
        self._waiting.insert(0, replace(message, kept=message.kept + 1, arrived_at=_now()))
        self._changed()

    def _see_to_leases(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._renew_leases(), name=f"keep {self._subscription}")

    async def _renew_leases(self) -> None:
        """Renew the leases of what waits and is kept, and give back what has waited too long."""
        while self._waiting or self._kept():
            await asyncio.sleep(self._lease_seconds / 3)
            too_old = _now() - self._patience.hold_seconds
            await self._return([message for message in self._waiting if message.arrived_at < too_old and message.spare])
            ids = [message.ack_id for message in [*self._waiting, *self._kept()]]
            if not ids:
                return
            try:
                lost = await self._access.prolong(self._subscription, ids, seconds=max(1, round(self._lease_seconds)))
            except BridgeError as error:
                _log.warning("renewal_failed", lease="queue", error=str(error))
                continue
            self._waiting = [message for message in self._waiting if message.ack_id not in lost]
            for ack_id in lost:
                self.settled(ack_id)

    async def _return(self, messages: Sequence[Pulled]) -> None:
        ids = [message.ack_id for message in messages]
        if not ids:
            return
        self._waiting = [message for message in self._waiting if message.ack_id not in ids]
        try:
            async with asyncio.timeout(self._patience.close_seconds):
                await self._access.prolong(self._subscription, ids, seconds=0)
        except (BridgeError, TimeoutError) as error:
            # Their leases run out, and they come again.
            _log.warning("return_failed", subscription=self._subscription, error=f"{type(error).__name__}: {error}")
        for ack_id in ids:
            self.settled(ack_id)

    def _kept(self) -> list[Pulled]:
        return [taken.message for taken in self._taken.values() if taken.timer is not None]

    def _is_full(self, message: Pulled) -> bool:
        kept = self._kept()
        return len(kept) >= _MOST_KEPT or len(message.body) + sum(len(each.body) for each in kept) > _MOST_KEPT_BYTES

    def _is_dropped(self, taken: _Taken) -> bool:
        """Whether its worker has let go of it, as when the ledger is out of reach; it comes again, here or elsewhere."""
        return taken.timer is None and _now() - taken.seen_at > self._lease_seconds

    def _takeable(self, message: Pulled) -> bool:
        """Whether no earlier message of its ordering key is out or waits."""
        key = message.ordering_key
        if not key:
            return True
        first = next(other for other in self._waiting if other.ordering_key == key)
        return first is message and all(taken.message.ordering_key != key for taken in self._taken.values())


def _now() -> float:
    return asyncio.get_running_loop().time()
