"""What the figures ask of others: the ledger and the queues, not more often than is set, however often the figures are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import structlog

from bridge.errors import BridgeError
from bridge.http.metrics import Metrics
from bridge.ledger.port import Backlog, DeadLetters, Outbox
from bridge.sources.port import QueueLevel

_log = structlog.get_logger()
Told = TypeVar("Told")
# What the queues may take to tell how much they hold.
_QUEUE_SECONDS = 3.0


class Figures:
    """All figures, as they are at most `every_seconds` ago."""

    def __init__(
        self,
        *,
        metrics: Metrics,
        outbox: Outbox,
        dead_letters: DeadLetters,
        levels: Callable[[], Awaitable[Sequence[QueueLevel]]],
        escalations: Callable[[], Awaitable[Mapping[str, int]]] | None = None,
        every_seconds: float = 5.0,
    ) -> None:
        """`levels`: what lies in the queues that jobs come from. `escalations`: how many cases for people there are, by state.

        `every_seconds`: how often they, and the ledger, are asked at most.
        """
        self._metrics = metrics
        self._outbox = outbox
        self._dead_letters = dead_letters
        self._levels = levels
        self._escalations = escalations
        self._every_seconds = every_seconds
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._backlog = Backlog(depth=0, oldest_age=0.0)
        self._dead = 0
        self._found: Sequence[QueueLevel] | None = None
        self._cases: Mapping[str, int] | None = None

    async def render(self) -> bytes:
        """All figures in the text format. Raises `TransientError` when the ledger is out of reach."""
        await self._ask()
        return self._metrics.render(self._backlog, self._found, dead_letters=self._dead, escalations=self._cases)

    async def levels(self) -> Sequence[QueueLevel] | None:
        """What lies in the queues that jobs come from; None while they do not tell. Raises `TransientError` as `render` does."""
        await self._ask()
        return self._found

    async def _ask(self) -> None:
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if self._asked_at is None or now - self._asked_at >= self._every_seconds:
                self._backlog, self._dead = await self._outbox.backlog(), await self._dead_letters.waiting()
                self._found = await _or_none("queue_level_unknown", self._levels)
                self._cases = await _or_none("escalations_unknown", self._escalations) if self._escalations else None
                self._asked_at = now


async def _or_none(event: str, ask: Callable[[], Awaitable[Told]]) -> Told | None:
    """None while they are out of reach: the other figures are told all the same."""
    try:
        async with asyncio.timeout(_QUEUE_SECONDS):
            return await ask()
    except (BridgeError, TimeoutError) as error:
        _log.warning(event, error=f"{type(error).__name__}: {error}")
        return None
