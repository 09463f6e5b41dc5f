"""The system's clock, which a test moves on: deadlines of many seconds pass at once, and none passes before, however slow the machine."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from tests.support.models import reference_engine


class MovedClock:
    """In place of `time.monotonic`, of event loops too, and of the sleep in runs of `ReferenceEngine`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self._real = time.monotonic
        self._ahead = 0.0

    def monotonic(self) -> float:
        return self._real() + self._ahead

    def sleep(self, seconds: float) -> None:
        """Let so many seconds have passed. Another thread than the loop's goes on when the loop has called what was due."""
        self._ahead += seconds
        if threading.get_ident() != self._thread:
            # Timers are called in the order of their times.
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0.001), self._loop).result(60)


def moved_clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    """Of the running loop."""
    clock = MovedClock(asyncio.get_running_loop())
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    monkeypatch.setattr(reference_engine, "time", clock)
    return clock
