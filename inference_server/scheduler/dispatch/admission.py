"""Bounds on what is waiting and running, over all models."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inference_server.errors import InvalidTensor, Overloaded

_PACE_SECONDS = 10.0
_SHORTEST_RETRY = 0.05
_LONGEST_RETRY = 30.0
_UNKNOWN_RETRY = 1.0


@dataclass(frozen=True, kw_only=True)
class QueueLimits:
    """How much may be waiting and running, over all models."""

    # Requests.
    max_requests: int = 4096
    # Bytes of their inputs.
    max_bytes: int = 1 << 30


class Pace:
    """How many requests a second have been answered lately; what is ten seconds old counts about a third."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._at = -math.inf

    def count(self, requests: int, now: float) -> None:
        """Requests were answered."""
        self._rate = self.rate(now) + requests / _PACE_SECONDS
        self._at = now

    def rate(self, now: float) -> float:
        """Requests answered a second."""
        return self._rate * math.exp((self._at - now) / _PACE_SECONDS)

    def seconds_for(self, requests: int, now: float) -> float:
        """How long that many take at this pace, within sensible bounds."""
        rate = self.rate(now)
        return min(max(requests / rate, _SHORTEST_RETRY), _LONGEST_RETRY) if rate > 0.001 else _UNKNOWN_RETRY


class Admission:
    """Counts the requests and bytes that are waiting and running, and refuses what would pass the limits."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._pace = Pace()
        self.requests = 0
        self.bytes = 0

    def enter(self, size: int, now: float) -> None:
        """Count a request of so many bytes in.

        Raises `Overloaded`, or `InvalidTensor` for one that would not fit into an empty queue either.
        """
        if size > self._limits.max_bytes:
            raise InvalidTensor(
                f"the request's tensors are {size} bytes; at most {self._limits.max_bytes} are taken: send it in parts", limit="queue_bytes"
            )
        if self.requests >= self._limits.max_requests:
            raise self._overloaded(f"{self.requests} requests are waiting or running, which is the limit", 1, now, "queue_requests")
        if self.bytes + size > self._limits.max_bytes:
            waiting = (
                f"{self.bytes} bytes of tensors are waiting or running and {size} more would pass the limit of {self._limits.max_bytes}"
            )
            share = (self.bytes + size - self._limits.max_bytes) / max(1, self.bytes)
            raise self._overloaded(waiting, math.ceil(self.requests * share), now, "queue_bytes")
        self.requests += 1
        self.bytes += size

    def leave(self, size: int, now: float, *, answered: bool) -> None:
        """Count a request out."""
        self.requests -= 1
        self.bytes -= size
        if answered:
            self._pace.count(1, now)

    def retry_after(self, too_many: int, now: float) -> float:
        """Seconds after which so many requests will have been answered."""
        return self._pace.seconds_for(too_many, now)

    def _overloaded(self, reason: str, too_many: int, now: float, limit: str) -> Overloaded:
        seconds = self.retry_after(too_many, now)
        return Overloaded(f"{reason}; try again in {seconds:.2f} s", retry_after=seconds, limit=limit)
