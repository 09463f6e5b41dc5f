"""What one subscription has given us and nobody has taken yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from bridge.errors import BridgeError

if TYPE_CHECKING:
    from google.pubsub_v1.types import ReceivedMessage

    from bridge.google.access import PubsubAccess
    from bridge.google.stream import PullStream

_log = structlog.get_logger()
# A message that came so long ago had its lease from the stream just now.
_FRESH_SECONDS = 1.0
_SHORTEST_STREAM_LEASE = 10.0
# A stream that broke after so long simply had its time; Google ends them every half hour.
_HONEST_LIFE_SECONDS = 5.0
# What is given back for longer has its place filled meanwhile.
_LONG_DELAY_SECONDS = 5.0
# More are not fetched while so many wait for the one before them with their ordering key.
_MOST_WAITING = 32


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Times in seconds."""

    # A stream that was just opened gets so long to show what it has, before a less urgent one is served.
    settle_seconds: float = 0.1
    # How long streams stay open after the last receiver.
    linger_seconds: float = 5.0
    # A stream without a sign of life for so long is opened anew: streams fall silent without an error.
    silence_seconds: float = 90.0
    # How long a message is held for the next receiver; then others get it. Each return may count towards a dead-letter policy.
    hold_seconds: float = 600.0
    # What closing may take.
    close_seconds: float = 3.0


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """A message as it came."""

    ack_id: str
    message_id: str
    body: bytes
    attributes: Mapping[str, str]
    ordering_key: str
    # Deliveries, this one included; 0 where the subscription does not count.
    attempts: int
    # When it was published, in seconds since 1970; None where that is not told.
    published_at: float | None
    # By the clock of the event loop.
    arrived_at: float = field(compare=False)

    def fresh(self, lease_seconds: float) -> bool:
        """Whether the lease that it came with is as wanted."""
        now = asyncio.get_running_loop().time()
        return lease_seconds >= _SHORTEST_STREAM_LEASE and now - self.arrived_at < _FRESH_SECONDS


class Intake:
    """One subscription's streams, and the messages that wait for a receiver. Those are kept under lease."""

    def __init__(
        self, access: PubsubAccess, subscription: str, *, lease_seconds: float, patience: Patience, changed: Callable[[], None]
    ) -> None:
        """`changed`: called when messages have come or the stream has ended."""
        self._access = access
        self._subscription = subscription
        self._lease_seconds = lease_seconds
        self._patience = patience
        self._changed = changed
        # More than one where slots became free that the first did not know of: to end a stream loses what is on its way.
        self._streams: list[PullStream] = []
        # The most messages that were asked for at once.
        self._most = 0
        self._waiting: list[Pulled] = []
        # Who has which ordering key: its message that is worked on.
        self._busy_keys: dict[str, str] = {}
        # When a message came, or the first was asked for; None before that.
        self._last_arrival: float | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Messages that nobody has taken."""
        return len(self._waiting)

    def oldest_seconds(self) -> float:
        """The age of the oldest that waits here; 0 when none does."""
        return max((max(0.0, time.time() - message.published_at) for message in self._waiting if message.published_at), default=0.0)

    def quiet_for(self) -> float:
        """Seconds since a message came; 0 before one was asked for."""
        return _now() - self._last_arrival if self._last_arrival is not None else 0.0

    def settling(self, seconds: float) -> float:
        """What is left of the moment that a new stream gets, in seconds."""
        return max((seconds - (_now() - stream.opened_at) for stream in self._streams if stream.open), default=0.0)

    async def want(self, limit: int) -> None:
        """See to it that so many messages can come, no more than that. Raises why the last stream broke."""
        ended = [stream for stream in self._streams if not stream.open]
        self._streams = [stream for stream in self._streams if stream.open]
        for stream in ended:
            if stream.failure is not None and _now() - stream.opened_at < _HONEST_LIFE_SECONDS:
                raise stream.failure
            _log.info("stream_ended", subscription=self._subscription, reason=str(stream.failure or "it had its time"))
        self._most = max(self._most, limit)
        need = limit - sum(stream.free for stream in self._streams) - sum(self._takeable(message) for message in self._waiting)
        need += await self._end_useless(-need)
        if need <= 0 or len(self._waiting) >= _MOST_WAITING:
            return
        if self._last_arrival is None:
            self._last_arrival = _now()
        self._streams.append(self._open(need))

    def take(self, limit: int) -> list[Pulled]:
        """At most so many messages, the oldest first, and of each ordering key one only."""
        taken: list[Pulled] = []
        for message in list(self._waiting):
            if len(taken) < limit and self._takeable(message):
                self._waiting.remove(message)
                taken.append(message)
                if message.ordering_key:
                    self._busy_keys[message.ordering_key] = message.ack_id
        return taken

    def put_back(self, messages: Sequence[Pulled]) -> None:
        """Undo a `take`."""
        self._waiting[:0] = messages
        self._free_keys({message.ack_id for message in messages})

    def settled(self, ack_id: str, *, delay_seconds: float = 0.0) -> None:
        """A message is acknowledged, given back or lost: its key is free, and so is its place, unless it comes again long after.

        For Pub/Sub it is out until then.
        """
        held_seconds = delay_seconds if delay_seconds > _LONG_DELAY_SECONDS else 0.0
        for stream in self._streams:
            stream.settle(ack_id, held_seconds=held_seconds)
        self._free_keys({ack_id})
        self._changed()

    def withdraw_followers(self, ack_id: str) -> list[str]:
        """Take away what waits behind a message with its ordering key; returns their ids."""
        key = next((key for key, holder in self._busy_keys.items() if holder == ack_id), None)
        followers = [message for message in self._waiting if key is not None and message.ordering_key == key]
        self._waiting = [message for message in self._waiting if message not in followers]
        return [message.ack_id for message in followers]

    async def _end_useless(self, surplus: int) -> int:
        """End streams whose places are all held, and those that are too many once places are free again; returns how many that takes."""
        surplus = min(surplus, sum(stream.capacity for stream in self._streams) - self._most)
        ended: list[PullStream] = []
        places = 0
        for stream in self._streams:
            if stream.spent or (stream.idle and stream.free <= surplus - places):
                ended.append(stream)
                places += max(0, stream.free)
        self._streams = [stream for stream in self._streams if stream not in ended]
        await asyncio.gather(*(stream.close(seconds=self._patience.close_seconds) for stream in ended))
        return places

    async def end_stream(self) -> None:
        """Let nothing more come. What waits is held for the next receiver."""
        streams, self._streams = self._streams, []
        await asyncio.gather(*(stream.close(seconds=self._patience.close_seconds) for stream in streams))

    async def close(self) -> None:
        """End the stream and give back what waits."""
        await self.end_stream()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        await self._return(self._waiting)

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
        self._waiting += [
            Pulled(
                ack_id=received.ack_id,
                message_id=received.message.message_id,
                body=received.message.data,
                attributes=dict(received.message.attributes),
                ordering_key=received.message.ordering_key,
                attempts=received.delivery_attempt,
                published_at=_seconds(received.message.publish_time),
                arrived_at=now,
            )
            for received in messages
        ]
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(), name=f"keep {self._subscription}")
        self._changed()

    async def _keep(self) -> None:
        """Renew the leases of what waits, and give back what has waited too long."""
        while self._waiting:
            await asyncio.sleep(self._lease_seconds / 3)
            too_old = _now() - self._patience.hold_seconds
            await self._return([message for message in self._waiting if message.arrived_at < too_old])
            if not self._waiting:
                return
            try:
                seconds = max(1, round(self._lease_seconds))
                lost = await self._access.prolong(self._subscription, [message.ack_id for message in self._waiting], seconds=seconds)
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

    def _takeable(self, message: Pulled) -> bool:
        """Whether no earlier message of its ordering key is out or waits."""
        key = message.ordering_key
        if not key:
            return True
        first = next(other for other in self._waiting if other.ordering_key == key)
        return key not in self._busy_keys and first is message

    def _free_keys(self, ack_ids: set[str]) -> None:
        self._busy_keys = {key: holder for key, holder in self._busy_keys.items() if holder not in ack_ids}


def _seconds(moment: Any) -> float | None:
    """A time as Google's client gives it; unset it is none, or 1970."""
    return float(moment.timestamp()) or None if moment else None


def _now() -> float:
    return asyncio.get_running_loop().time()
