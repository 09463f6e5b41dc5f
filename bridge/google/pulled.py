"""Messages of Pub/Sub as they came, and how patiently they are dealt with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.pubsub_v1.types import ReceivedMessage

# A message that came so long ago had its lease from the stream just now.
_FRESH_SECONDS = 1.0
_SHORTEST_STREAM_LEASE = 10.0
# A dead-letter policy allows five deliveries at least: to be left to others may cost the first two, and the rest is for what goes wrong.
_SPARE_DELIVERIES = 2


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Times in seconds."""

    # A stream that was just opened gets so long to show what it has, before a less urgent one is served.
    settle_seconds: float = 0.1
    # How long streams stay open after the last receiver.
    linger_seconds: float = 5.0
    # A stream without a sign of life for so long is opened anew: streams fall silent without an error.
    silence_seconds: float = 90.0
    # How long a message is held for the next receiver; then others get it, unless that brings it near the end of a dead-letter policy.
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
    # Deliveries, this one included; 0 where the subscription does not count, having no dead-letter policy.
    deliveries: int
    # When it was published, in seconds since 1970; None where that is not told.
    published_at: float | None
    # By the clock of the event loop.
    arrived_at: float = field(compare=False)
    # How often it was kept here for a later try, which Pub/Sub knows nothing of.
    kept: int = 0

    @property
    def counted(self) -> bool:
        """Whether each return of it brings it nearer to the end of a dead-letter policy."""
        return self.deliveries > 0

    @property
    def spare(self) -> bool:
        """Whether it may be left to others merely because nobody here has time for it."""
        return self.deliveries <= _SPARE_DELIVERIES

    def fresh(self, lease_seconds: float) -> bool:
        """Whether the lease that it came with is as wanted."""
        now = asyncio.get_running_loop().time()
        return lease_seconds >= _SHORTEST_STREAM_LEASE and now - self.arrived_at < _FRESH_SECONDS


def pulled(received: ReceivedMessage, *, arrived_at: float) -> Pulled:
    """What Google's client gives, as we keep it."""
    return Pulled(
        ack_id=received.ack_id,
        message_id=received.message.message_id,
        body=received.message.data,
        attributes=dict(received.message.attributes),
        ordering_key=received.message.ordering_key,
        deliveries=received.delivery_attempt,
        published_at=_seconds(received.message.publish_time),
        arrived_at=arrived_at,
    )


def _seconds(moment: Any) -> float | None:
    """A time as Google's client gives it; unset it is none, or 1970."""
    return float(moment.timestamp()) or None if moment else None
