"""Turns of pages: how many of all documents are in work at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from inference_server.tasks.documents.running import PDF

# Pages that pdfium has yet to draw: one that it draws, and one that is ready when that is drawn.
_UNDRAWN = 2


class Turns:
    """Bounds the pages in work; while a file holds pdfium, those that wait for it leave the others their place."""

    def __init__(self, most: int) -> None:
        """`most`: pages at once."""
        self._pages = asyncio.Semaphore(most)
        self._undrawn = asyncio.Semaphore(_UNDRAWN)

    @asynccontextmanager
    async def turn(self, media_type: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """The turn of a page of a document of this type; what is given is to be called when pdfium is done with the page."""
        async with AsyncExitStack() as undrawn:
            if media_type == PDF:
                await undrawn.enter_async_context(self._undrawn)
            async with self._pages:
                yield undrawn.aclose
