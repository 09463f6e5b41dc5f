"""Stored tiles whose bytes come with those of their neighbours, before anybody asks for them: a request costs more than what it brings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from inference_server.tasks.slides.values import Place, Position

# Of one slide. What was fetched together is freed together, so that more may be held.
_MOST_BYTES = 16 * 1024 * 1024
# What has not been asked for when so much more has come along is asked for by nobody: it was announced by a region that ends beside it.
_PASSED_OVER_BYTES = 4 * _MOST_BYTES


class ReadAhead:
    """The bytes of one slide's stored tiles, fetched once."""

    def __init__(self, fetch: Callable[[int, Sequence[Position]], Awaitable[list[Any]]], size: Callable[[int, Position], int]) -> None:
        """`fetch`: the bytes of tiles of a level, in their order; `size`: how many a tile has, 0 where it was never scanned."""
        self._fetch = fetch
        self._size = size
        # Each with its size, and how many bytes had come along before it; in the order in which they came.
        self._coming: dict[Place, tuple[asyncio.Future[Any], int, int]] = {}
        self._bytes = 0
        self._came_bytes = 0

    async def read(self, level: int, places: Sequence[Position], soon: Sequence[Position]) -> list[Any]:
        """The bytes of tiles in their order. `soon`: those that come along where something is fetched of their row. Raises as `fetch`."""
        held = {place: self._taken(level, place) for place in places if (level, *place) in self._coming}
        missing = [place for place in places if place not in held]
        rows = {row for _, row in missing}
        futures = self._expected(level, [place for place in soon if place[1] in rows])
        try:
            fetched = await self._fetch(level, [*missing, *futures])
        except BaseException:
            for place, future in futures.items():
                if (level, *place) in self._coming:
                    self._taken(level, place)
                # Whoever waits for it fails with the same analysis.
                future.cancel()
            raise
        for future, content in zip(futures.values(), fetched[len(missing) :], strict=True):
            if not future.cancelled():  # who waited for it was cancelled
                future.set_result(content)
        found = dict(zip(missing, fetched, strict=False))
        return [found[place] if place in found else await held[place] for place in places]

    def _expected(self, level: int, places: Sequence[Position]) -> dict[Position, asyncio.Future[Any]]:
        """Those that are not held yet, as far as there is room."""
        self._pass_over()
        futures: dict[Position, asyncio.Future[Any]] = {}
        for place in places:
            size = self._size(level, place)
            if size and (level, *place) not in self._coming and self._bytes + size <= _MOST_BYTES:
                futures[place] = asyncio.get_running_loop().create_future()
                self._coming[level, *place] = futures[place], size, self._came_bytes
                self._bytes += size
                self._came_bytes += size
        return futures

    def _pass_over(self) -> None:
        """Let go of what nobody has asked for."""
        while self._coming:
            (level, *place), (_, _, before) = next(iter(self._coming.items()))
            if self._came_bytes - before <= _PASSED_OVER_BYTES:
                return
            self._taken(level, (place[0], place[1]))

    def _taken(self, level: int, place: Position) -> asyncio.Future[Any]:
        future, size, _ = self._coming.pop((level, *place))
        self._bytes -= size
        return future
