"""What a page may take, and its turn among the pages of all documents."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Self

from inference_server.allocator import KEPT_FOR_DOCUMENTS, Reuse


class PageTime:
    """Counts a page's time while it is worked on, not while it waits for others; ends it by `TimeoutError` when that is used up.

    That of its document goes on all the time. To be entered; what it holds is given back when it is left.
    """

    def __init__(self, turns: asyncio.Semaphore, memory: Reuse, *, seconds: float, until: float) -> None:
        """`seconds`: of the page; `until`: of its document, on the clock of `time.monotonic`."""
        self._turns = turns
        self._memory = memory
        self._seconds = seconds
        self._until = until
        self._since: float | None = None
        self._held = AsyncExitStack()
        self._timer = asyncio.timeout(None)

    @property
    def is_waiting(self) -> bool:
        """Whether others keep it waiting."""
        return self._since is None

    async def __aenter__(self) -> Self:
        await self._timer.__aenter__()
        self._rest()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._held.aclose()
        await self._timer.__aexit__(*error)  # type: ignore[arg-type]

    def run(self) -> None:
        """It is worked on from now on."""
        if self._since is None:
            self._since = time.monotonic()
            self._end_at(min(self._until, self._since + self._seconds))

    async def turn(self) -> None:
        """Wait for its turn, then go on."""
        self._rest()
        await self._held.enter_async_context(self._turns)
        await self._held.enter_async_context(self._memory.reused(KEPT_FOR_DOCUMENTS))
        self.run()

    def _rest(self) -> None:
        if self._since is not None:
            self._seconds -= time.monotonic() - self._since
        self._since = None
        self._end_at(self._until)

    def _end_at(self, moment: float) -> None:
        self._timer.reschedule(asyncio.get_running_loop().time() + moment - time.monotonic())
