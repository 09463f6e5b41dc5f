"""Memory that slides share, however many are analysed at the same time: what is kept of them, and what their calls hold."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class CacheBudget:
    """Bytes of decoded tiles that all slides together may keep for their neighbours."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: of all slides that are read; each has a sixteenth of it in any case."""
        self._most_bytes = most_bytes
        self._held_bytes = 0

    def taken(self, wanted: int) -> CacheShare:
        """So much of it, or what is left. Nobody waits: with less, some stored tiles are read again where columns of tiles meet."""
        granted = min(wanted, max(self._most_bytes - self._held_bytes, self._most_bytes // 16))
        self._held_bytes += granted
        return CacheShare(self, granted)

    def given_back(self, count: int) -> None:
        """Let others have it."""
        self._held_bytes -= count


class CacheShare:
    """What one slide may keep."""

    def __init__(self, budget: CacheBudget, count: int) -> None:
        """`count`: bytes, already taken from the budget."""
        self._budget = budget
        self.bytes = count

    def end(self) -> None:
        """Give it back; again does nothing."""
        count, self.bytes = self.bytes, 0
        self._budget.given_back(count)


class CallBudget:
    """Pixels of tiles that may be under way between reading and findings, of all slides together, first come, first served."""

    def __init__(self, most_pixels: int) -> None:
        """`most_pixels`: a single call with more goes alone."""
        self._most_pixels = most_pixels
        self._held_pixels = 0
        # Those who wait, and what for.
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @asynccontextmanager
    async def taken(self, pixels: int) -> AsyncIterator[Callable[[], None]]:
        """Wait until there is room for so many, and hold it for as long as the block lasts, or until what is yielded is called."""
        if self._waiting or not self._fits(pixels):
            await self._wait(pixels)
        else:
            self._held_pixels += pixels
        holds = True

        def give_back() -> None:
            nonlocal holds
            if holds:
                holds = False
                self._give_back(pixels)

        try:
            yield give_back
        finally:
            give_back()

    def _fits(self, pixels: int) -> bool:
        return not self._held_pixels or self._held_pixels + pixels <= self._most_pixels

    async def _wait(self, pixels: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, pixels))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It was given room, and goes away with it.
                self._give_back(pixels)
            else:
                self._waiting.remove((turn, pixels))
                self._admit()
            raise

    def _give_back(self, pixels: int) -> None:
        self._held_pixels -= pixels
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0][1]):
            turn, pixels = self._waiting.popleft()
            if not turn.done():
                self._held_pixels += pixels
                turn.set_result(None)
