"""Time that passes only where a test has it pass, so that what is measured is the same on every machine and each time."""

from __future__ import annotations

import pytest

from inference_server.engine.selection import contest, stopwatch
from tests.support.models import reference_engine

# Seconds between two readings: whatever is done takes a while.
_A_READING = 0.0001


class VirtualClock:
    """What the module `time` has for those who measure and those who sleep. Nothing computes, so no processor time passes."""

    def __init__(self) -> None:
        self._now = 1000.0

    def monotonic(self) -> float:
        self._now += _A_READING
        return self._now

    perf_counter = monotonic

    def process_time(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self._now += seconds


def measured_virtually(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """Have engines measured by this clock, which the runs of `ReferenceEngine` move on by their `seconds`."""
    clock = VirtualClock()
    for module in (contest, stopwatch, reference_engine):
        monkeypatch.setattr(module, "time", clock)
    # The system's own tell of the real time.
    monkeypatch.setattr(stopwatch, "thread_times", dict)
    return clock
