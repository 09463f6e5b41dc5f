"""Waits for what has to happen, on however slow a machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# Of a wait that ends at once but on a machine that is busy with other things, or with a fault: no test tells by it how fast anything is.
PATIENCE_SECONDS = 60.0
# Of work during which nothing gets on, though workers are killed over it: their leases have to run out, and a stream of Google's emulator
# that has fallen silent is opened anew after 90 s.
STANDSTILL_SECONDS = 300.0


async def until(true: Callable[[], object]) -> None:
    """Raises `TimeoutError` when it has not become so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():
            await asyncio.sleep(0.005)


class Headway:
    """Tells work that gets on, however slowly, from work that stands still."""

    def __init__(self) -> None:
        self._left: object = None
        self._since = time.monotonic()

    def check(self, left: object) -> None:
        """Take up what is left to do. Raises `AssertionError` when that has been the same for too long."""
        if left != self._left:
            self._left, self._since = left, time.monotonic()
        assert time.monotonic() < self._since + STANDSTILL_SECONDS, f"nothing got on for {STANDSTILL_SECONDS:g} s; left: {left}"
