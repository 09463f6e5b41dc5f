"""Waits that a stop cuts short."""

from __future__ import annotations

import asyncio


async def stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Wait so long, unless stopped; returns whether."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True
