"""Waits for what has to happen, on however slow a machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# Of a wait that ends at once but on a machine that is busy with other things, or with a fault: no test tells by it how fast anything is.
PATIENCE_SECONDS = 60.0


async def until(true: Callable[[], object]) -> None:
    """Raises `TimeoutError` when it has not become so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not true():
            await asyncio.sleep(0.005)
