"""Dead letters that are put aside in their own queue's system too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.job import Delivery
from bridge.ledger.port import DeadLetter, DeadLetters


class PuttingAside(Protocol):
    """Keeps a message that cannot be read where its senders look for it."""

    async def put(self, delivery: Delivery, *, reason: str) -> None:
        """Returns once the message is kept there."""


class Burial:
    """The ledger's dead letters; what cannot be read is put aside as well, before its message is taken off the queue."""

    def __init__(self, letters: DeadLetters, aside: PuttingAside) -> None:
        self._letters = letters
        self._aside = aside

    async def bury(self, delivery: Delivery, *, reason: str) -> None:
        """Keep a message that cannot be read."""
        await self._letters.bury(delivery, reason=reason)
        await self._aside.put(delivery, reason=reason)

    async def list(self, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest first."""
        return await self._letters.list(limit=limit)

    async def reopen(self, letter_id: int) -> DeadLetter:
        """Let the letter's job be claimed anew. Raises `PermanentError`."""
        return await self._letters.reopen(letter_id)

    async def mark_replayed(self, letter_id: int) -> None:
        """Record that the bytes have been sent again."""
        await self._letters.mark_replayed(letter_id)

    async def waiting(self) -> int:
        """How many nobody has replayed."""
        return await self._letters.waiting()
