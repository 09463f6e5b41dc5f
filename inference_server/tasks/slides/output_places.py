"""Where analyses write: those of one place have files of the same names, so that only one at a time may have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from inference_server.errors import OutputTaken

# For so long a call waits for the one before: it may be one that was cancelled, and is about to leave.
_PATIENCE_SECONDS = 5.0


class OutputPlaces:
    """The places that analyses of one server have now."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def taken(self, output_uri: str, place: Hashable) -> AsyncIterator[None]:
        """Have a place for as long as the block lasts. Raises `OutputTaken`.

        `place`: of `output_uri`, the same however that is spelled; None for who has none.
        """
        if place is None:
            yield
            return
        lock = self._locks.setdefault(place, asyncio.Lock())
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await lock.acquire()
        except TimeoutError as error:
            raise OutputTaken(
                f"another analysis of this server writes to {output_uri} now, and its files have the same names. "
                "Give each an output_uri of its own, or ask again once it has ended."
            ) from error
        try:
            yield
        finally:
            lock.release()
