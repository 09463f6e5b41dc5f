"""Takes away, now and then, what nobody will ask for any more."""

from __future__ import annotations

import asyncio
import random

import structlog

from bridge.ledger.port import Pruner
from bridge.pauses import stopped

_log = structlog.get_logger()

# Between two rounds: any time up to this, so that replicas seldom meet. In seconds.
_ROUND_SECONDS = 3600.0
_FIRST_ROUND_SECONDS = 60.0
# Between two portions of a round, so that others get their turn.
_BREATH_SECONDS = 0.2


class Housekeeper:
    """Prunes the ledger. Any number of replicas may run it."""

    def __init__(self, pruner: Pruner, *, keep_seconds: float, round_seconds: float = _ROUND_SECONDS) -> None:
        """`keep_seconds`: how long what has ended is kept."""
        self._pruner = pruner
        self._keep_seconds = keep_seconds
        self._round_seconds = round_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Prune until `stop`."""
        pause = min(self._round_seconds, _FIRST_ROUND_SECONDS)
        while not await stopped(stop, random.uniform(pause / 2, pause)):  # noqa: S311  (no secret)
            pause = self._round_seconds
            await self._round(stop)

    async def _round(self, stop: asyncio.Event) -> None:
        removed = 0
        try:
            while found := await self._pruner.prune(keep_seconds=self._keep_seconds):
                removed += found
                if await stopped(stop, _BREATH_SECONDS):
                    break
        except Exception as error:
            _log.warning("pruning_failed", error=f"{type(error).__name__}: {error}")
        if removed:
            _log.info("pruned", rows=removed)
