"""Signs of life: what tells a bridge that is stuck from one that waits, and how far its leases are from their end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum


class Lease(StrEnum):
    """Whose lease."""

    LEDGER = "ledger"  # the job's
    QUEUE = "queue"  # the message's


class Vitals:
    """Kept by the loops themselves. A loop that may wait as long as it likes owes no sign; one that is at something does."""

    def __init__(self, *, patience_seconds: float = 300.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`patience_seconds`: after so long without a sign whoever owes one counts as stuck."""
        self._patience = patience_seconds
        self._clock = clock
        # From when on each owes a sign.
        self._owed: dict[str, float] = {}
        # When leases run out, by job or message.
        self._leases: dict[tuple[Lease, str], float] = {}
        self._fenced: Counter[str] = Counter()

    def begin(self, who: str, *, within: float = 0.0) -> None:
        """`who` is at something that takes so many seconds. Each call is a sign of life."""
        self._owed[who] = self._clock() + within

    def rest(self, who: str) -> None:
        """`who` has ended it, and owes nothing."""
        self._owed.pop(who, None)

    def stuck(self) -> Mapping[str, float]:
        """Who owes a sign for too long, and for how many seconds."""
        now = self._clock()
        return {who: now - since for who, since in self._owed.items() if now - since > self._patience}

    def silence(self) -> float:
        """For how many seconds the one that owes a sign the longest has given none; 0 when nobody does."""
        now = self._clock()
        return max((now - since for since in self._owed.values() if since < now), default=0.0)

    def leased(self, lease: Lease, what: str, *, seconds: float) -> None:
        """A lease lasts so long from now."""
        self._leases[lease, what] = self._clock() + seconds

    def unleased(self, lease: Lease, what: str) -> None:
        """A lease has ended as it should, or is lost."""
        self._leases.pop((lease, what), None)

    def margin(self, lease: Lease) -> float:
        """Seconds that are left of the lease that ends first, below 0 when it has run out; NaN when there is none."""
        ends = [until for (kind, _), until in self._leases.items() if kind is lease]
        return min(ends) - self._clock() if ends else float("nan")

    def fenced(self, system: str) -> None:
        """A write was refused, as another worker had taken the job over."""
        self._fenced[system] += 1

    @property
    def fenced_writes(self) -> Mapping[str, int]:
        """How many were refused, by system."""
        return self._fenced
