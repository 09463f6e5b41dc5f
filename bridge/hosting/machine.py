"""The machine that we run on, as one: what it is told while jobs run, and what becomes of a notice that it will go."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import structlog

from bridge.hosting.ecs import TaskProtection
from bridge.hosting.spot import Notice, SpotWatch
from bridge.steps import StepTaken

_log = structlog.get_logger()
# What is left of the notice's time for the leases to be given back and the last messages to be sent.
_MARGIN_SECONDS = 10.0


class Machine:
    """An observer; does nothing where neither is set."""

    def __init__(self, *, protection: TaskProtection | None = None, watch: SpotWatch | None = None) -> None:
        self._protection = protection
        self._watch = watch
        self._stop: asyncio.Event | None = None
        self._drain_until: Callable[[float], None] | None = None
        self._doomed = False

    def on_step(self, taken: StepTaken) -> None:
        """Protection is asked for at the first receipt."""
        if self._protection is not None:
            self._protection.on_step(taken)

    async def look(self, stop: asyncio.Event, drain_until: Callable[[float], None]) -> None:
        """Look for a notice before anything is received. Such a notice sets `stop`, and how long running jobs may go on."""
        self._stop, self._drain_until = stop, drain_until
        if self._watch is not None:
            try:
                self._doomed = await self._watch.look(self._noticed)
            except Exception as error:
                _log.error("machine_unknown", error=f"{type(error).__name__}: {error}", exc_info=error)

    async def run(self, ended: asyncio.Event) -> None:
        """Protect and watch until the worker has ended."""
        async with asyncio.TaskGroup() as group:
            if self._protection is not None:
                group.create_task(_guarded(self._protection.run(ended)), name="task protection")
            if self._watch is not None and not self._doomed:
                group.create_task(_guarded(self._watch.run(ended, self._noticed)), name="spot watch")

    def _noticed(self, notice: Notice) -> None:
        _log.warning("machine_will_go", action=notice.action, seconds_left=notice.seconds_left)
        if self._stop is None or self._drain_until is None:
            return
        now = asyncio.get_running_loop().time()
        if notice.seconds_left is not None:
            self._drain_until(now + max(0.0, notice.seconds_left - _MARGIN_SECONDS))
        elif notice.action == "rebalance":
            # Nothing says when, or whether at all: running jobs may end, unless a notice with a time follows.
            self._drain_until(math.inf)
        self._stop.set()


async def _guarded(work: Awaitable[None]) -> None:
    """Whatever goes wrong with the machine, the jobs go on."""
    try:
        await work
    except Exception as error:
        _log.error("machine_lost", error=f"{type(error).__name__}: {error}", exc_info=error)
