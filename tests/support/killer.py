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

from tests.support.bridge_process import BridgeSetup

_WAYS = (signal.SIGKILL, signal.SIGTERM)
_LOOK_SECONDS = 0.2
_MOST_SECONDS = 120.0


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
    """Keeps bridges running, and ends one of them every few moments: at once, or as an orchestrator does."""

    def __init__(
        self,
        setups: Sequence[BridgeSetup],
        chance: random.Random,
        *,
        pause: tuple[float, float],
        progress: Callable[[], object] = lambda: None,
    ) -> None:
        """`pause`: the least and the most seconds between one kill and the next.

        `progress`: how far the work is; while it stays the same, a strike waits longer, so that work gets on on a slow machine too.
        """
        self._pause = pause
        self._progress = progress
        self._chance = chance
        self._ways: list[signal.Signals] = []
        self._bridges = [self._start(setup) for setup in setups]
        self._seen: object = None
        self.kills: Counter[str] = Counter()

    @staticmethod
    def _start(setup: BridgeSetup) -> _Running:
        stack, log = ExitStack(), setup.folder / "bridge.log"
        log.touch()
        begin = log.stat().st_size
        return _Running(setup=setup, stack=stack, process=stack.enter_context(setup.running_forked()), log_begin=begin)

    def strike(self) -> None:
        """Wait a moment and until work went on, end one that may still be starting while all others work, start it anew."""
        which = self._chance.randrange(len(self._bridges))
        struck = self._bridges[which]
        self._wait_until(lambda: all(bridge.works() for bridge in self._bridges if bridge is not struck), "all others work")
        time.sleep(self._chance.uniform(*self._pause))
        self._wait_until(self._went_on, "the work goes on")
        assert struck.process.exitcode is None, "it ended by itself: see its log"
        number = self._next_way()
        self._end(struck, number)
        self.kills[number.name] += 1
        self._bridges[which] = self._start(struck.setup)

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
        until = time.monotonic() + _MOST_SECONDS
        while not happened():
            assert time.monotonic() < until, f"{what} within {_MOST_SECONDS:g} s"
            time.sleep(_LOOK_SECONDS)
