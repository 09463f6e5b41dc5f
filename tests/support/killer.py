"""Bridges that are killed and restarted at random."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from tests.support.bridge_process import BridgeSetup


class Killer:
    """Keeps bridges running, and ends one of them every few moments: at once, or as an orchestrator does."""

    def __init__(self, setups: Sequence[BridgeSetup], chance: random.Random, *, pause: tuple[float, float]) -> None:
        """`pause`: the least and the most seconds between one kill and the next."""
        self._setups = setups
        self._pause = pause
        self._chance = chance
        self._bridges = [self._start(setup) for setup in setups]
        self.kills: Counter[str] = Counter()

    @staticmethod
    def _start(setup: BridgeSetup) -> tuple[ExitStack, subprocess.Popen[bytes]]:
        stack = ExitStack()
        return stack, stack.enter_context(setup.running())

    def strike(self) -> None:
        """Wait a moment, end one, start it anew."""
        time.sleep(self._chance.uniform(*self._pause))
        which = self._chance.randrange(len(self._bridges))
        stack, process = self._bridges[which]
        assert process.poll() is None, "it ended by itself: see its log"
        number = self._chance.choice((signal.SIGKILL, signal.SIGTERM))
        process.send_signal(number)
        process.wait(60)
        stack.close()
        self.kills[number.name] += 1
        self._bridges[which] = self._start(self._setups[which])

    def close(self) -> None:
        """End both in peace."""
        for _, process in self._bridges:
            process.send_signal(signal.SIGTERM)
        for stack, process in self._bridges:
            process.wait(60)
            stack.close()
