"""How far an analysis is, told at a sane rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inference_server.tasks.slides.values import Progress

_SECONDS_BETWEEN = 0.5


class ProgressMeter:
    """Counts tiles, and the time in which some are worked on: where all wait for other slides, none passes."""

    def __init__(self, *, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """`total`: tiles in all; `done`: by earlier runs, which say nothing of the speed of this one; `clock`: tells seconds."""
        self._total = total
        self._done = self._earlier = done
        self._clock = clock
        self._told = self._since = clock()
        # Workers that do not wait, and seconds in which there were such, up to `_since`.
        self._busy = 0
        self._seconds = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the time of the block, in which one more works."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within `working`, a block in which it only waits for other slides."""
        self._change(-1)
        try:
            yield
        finally:
            self._change(1)

    def advance(self, tiles: int) -> Progress | None:
        """Count tiles that are finished; what to tell now, or None so soon after the last time."""
        self._done += tiles
        if self._clock() - self._told < _SECONDS_BETWEEN and self._done < self._total:
            return None
        return self.now()

    def now(self) -> Progress:
        """How far it is."""
        self._told = self._clock()
        self._change(0)
        own = self._done - self._earlier
        rate = own / self._seconds if own and self._seconds > 0 else 0.0
        left = (self._total - self._done) / rate if rate else None
        return Progress(stage="tiles", tiles_done=self._done, tiles_total=self._total, tiles_per_second=rate, seconds_left=left)

    def _change(self, workers: int) -> None:
        now = self._clock()
        if self._busy:
            self._seconds += now - self._since
        self._since = now
        self._busy += workers
