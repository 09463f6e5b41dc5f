"""What every rollup does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Rolled:
    """What a batch came to."""

    # Rows that were taken up, and rows that could not be.
    taken: int = 0
    failed: int = 0
    # Of those that could not be, how many may go better soon: a job for them is to be tried again.
    postponed: int = 0

    def __add__(self, other: Rolled) -> Rolled:
        """Both together."""
        return Rolled(taken=self.taken + other.taken, failed=self.failed + other.failed, postponed=self.postponed + other.postponed)


class Rollup(Protocol):
    """One kind of rows."""

    @property
    def name(self) -> str:
        """For people: vitals, nutrition, labs."""

    async def users(self, *, failed: bool = False) -> Sequence[int]:
        """Whose rows wait, the longest waiting first. `failed`: whose rows have failed and are due alone. Raises `TransientError`."""

    async def roll(self, user: int) -> Rolled:
        """Take up one batch of a user's rows; nothing when none waits. Raises `TransientError`, `OverloadError`, `NotYetError`."""

    async def recompute(self, user: int, since: date, until: date) -> None:
        """Compute all buckets of a user's days anew; what was deleted since is no longer counted. Raises `TransientError`."""
