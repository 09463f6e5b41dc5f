"""What every source of deliveries fulfils. One conformance suite runs on every adapter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.job import Delivery


@dataclass(frozen=True, kw_only=True)
class QueueLevel:
    """What lies in one queue that jobs come from. A count that the queue does not tell is NaN."""

    # As configured.
    queue: str
    # Messages that could be delivered now.
    waiting: float
    # Messages that somebody works on.
    leased: float
    # Messages that are held back for a while.
    delayed: float
    # Age in seconds of the oldest that waits; 0 when none does.
    oldest_seconds: float
    # Messages that the queue itself has given up and moved to another, as SQS does.
    dead: float = math.nan


class Source(Protocol):
    """A queue that jobs come from."""

    @property
    def name(self) -> str:
        """What kind of queue it is: local, pubsub, redis, sqs."""

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """At most `limit` deliveries, each leased to us; empty when none came in time."""

    async def renew(self, delivery: Delivery, *, lease_seconds: float) -> None:
        """Prolong the queue's own lease. Raises `LeaseLostError` when the receipt is stale."""

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take the message off the queue; harmless when it is gone."""

    async def release(self, delivery: Delivery, *, delay_seconds: float, tried: bool = True) -> None:
        """Give the message back, to be delivered again after the delay; harmless when the receipt is stale.

        `tried`: whether a try was made; a queue whose count is taken for tries by other programs leaves this one out if not.
        """
