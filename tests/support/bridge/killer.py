"""Bridges that are killed and restarted at random."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import psycopg

from tests.support.bridge.bridge_process import BridgeSetup
from tests.support.patience import STANDSTILL_SECONDS

_WAYS = (signal.SIGKILL, signal.SIGTERM)
_LOOK_SECONDS = 0.2
# For so long a kill waits for a bridge that holds a job: there may be no work left.
_AIM_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A bridge that was started."""

    setup: BridgeSetup
    stack: ExitStack
    process: BaseProcess
    # Where its part of the log begins.
    log_begin: int

    def works(self) -> bool:
        """Whether it has said that it started."""
        with (self.setup.folder / "bridge.log").open("rb") as log:
            log.seek(self.log_begin)
            return b'"event": "started"' in log.read()


class Killer:
    """Keeps bridges running, and ends one of them whenever it is told to: at once, in the midst of a job, or as an orchestrator does."""

    def __init__(
        self,
        setups: Sequence[BridgeSetup],
        chance: random.Random,
        *,
        database: str,
        pause: tuple[float, float],
        progress: Callable[[], object],
    ) -> None:
        """`database`: the PostgreSQL of the bridges' ledger. `pause`: how long they may work, the least and the most seconds.

        `progress`: how far the work is; while it stays the same, they may work longer, so that work gets on on a slow machine too.
        """
        self._database = database
        self._pause = pause
        self._progress = progress
        self._chance = chance
        self._ways: list[signal.Signals] = []
        self._bridges = [self._start(setup) for setup in setups]
        self._seen: object = None
        # The one that is ended next, where it need not hold a job.
        self._next = 0
        self.kills: Counter[str] = Counter()
        # Keys of the jobs that bridges held when they were killed.
        self.orphaned: set[str] = set()

    @staticmethod
    def _start(setup: BridgeSetup) -> _Running:
        stack, log = ExitStack(), setup.folder / "bridge.log"
        log.touch()
        begin = log.stat().st_size
        return _Running(setup=setup, stack=stack, process=stack.enter_context(setup.running_forked()), log_begin=begin)

    def let_work(self) -> None:
        """Wait until all bridges work but one, which may still be starting, then a moment, and until work went on."""
        self._next = self._chance.randrange(len(self._bridges))
        others = [bridge for bridge in self._bridges if bridge is not self._bridges[self._next]]
        self._wait_until(lambda: all(bridge.works() for bridge in others), "all others work")
        time.sleep(self._chance.uniform(*self._pause))
        self._wait_until(self._went_on, "the work goes on")

    def strike(self) -> None:
        """End one and start it anew: one that holds a job, where there is any, when it is killed."""
        number = self._next_way()
        which = self._holder() if number is signal.SIGKILL else self._next
        struck = self._bridges[which]
        assert struck.process.exitcode is None, "it ended by itself: see its log"
        self._end(struck, number)
        self.kills[number.name] += 1
        if number is signal.SIGKILL:
            self.orphaned |= {key for key, pid in self._held().items() if pid == struck.process.pid}
        self._bridges[which] = self._start(struck.setup)

    def let_work_and_strike(self) -> None:
        """One after the other."""
        self.let_work()
        self.strike()

    def close(self) -> None:
        """End all in peace."""
        for bridge in self._bridges:
            self._signal(bridge, signal.SIGTERM)
        for bridge in self._bridges:
            bridge.process.join(60)
            bridge.stack.close()

    def _next_way(self) -> signal.Signals:
        """Each way comes as often as the others, so that a few strikes are of all."""
        if not self._ways:
            self._ways = self._chance.sample(_WAYS, len(_WAYS))
        return self._ways.pop()

    def _holder(self) -> int:
        """The number of a bridge that holds a job; of any, when none does so soon."""
        until = time.monotonic() + _AIM_SECONDS
        while time.monotonic() < until:
            holders = set(self._held().values())
            if found := [number for number, bridge in enumerate(self._bridges) if bridge.process.pid in holders]:
                return self._chance.choice(found)
            time.sleep(_LOOK_SECONDS / 10)
        return self._next

    def _held(self) -> dict[str, int]:
        """The jobs that are worked on, by key, with the process that holds each or held it when it died."""
        with psycopg.connect(self._database) as connection:
            rows = connection.execute("SELECT key, split_part(worker, ':', 2)::int FROM lamina.jobs WHERE state = 'running'").fetchall()
        return dict(rows)

    def _end(self, bridge: _Running, number: signal.Signals) -> None:
        self._signal(bridge, number)
        bridge.process.join(60)
        assert bridge.process.exitcode is not None, "it did not end"
        bridge.stack.close()

    @staticmethod
    def _signal(bridge: _Running, number: signal.Signals) -> None:
        if bridge.process.exitcode is None and bridge.process.pid:
            os.kill(bridge.process.pid, number)

    def _went_on(self) -> bool:
        before, self._seen = self._seen, self._progress()
        return before is None or before != self._seen

    @staticmethod
    def _wait_until(happened: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + STANDSTILL_SECONDS
        while not happened():
            assert time.monotonic() < until, f"{what} within {STANDSTILL_SECONDS:g} s"
            time.sleep(_LOOK_SECONDS)
