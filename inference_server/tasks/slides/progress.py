"""How far an analysis is, told at a sane rate."""

from __future__ import annotations

import time

from inference_server.tasks.slides.values import Progress

_SECONDS_BETWEEN = 0.5


class ProgressMeter:
    """Counts tiles."""

    def __init__(self, *, total: int, done: int = 0) -> None:
        """`total`: tiles in all; `done`: by earlier runs, which say nothing of the speed of this one."""
        self._total = total
        self._done = self._earlier = done
        self._started = self._told = time.monotonic()

    def advance(self, tiles: int) -> Progress | None:
        """Count tiles that are finished; what to tell now, or None so soon after the last time."""
        self._done += tiles
        if time.monotonic() - self._told < _SECONDS_BETWEEN and self._done < self._total:
            return None
        return self.now()

    def now(self) -> Progress:
        """How far it is."""
        self._told = time.monotonic()
        elapsed = self._told - self._started
        own = self._done - self._earlier
        rate = own / elapsed if own and elapsed > 0 else 0.0
        left = (self._total - self._done) / rate if rate else None
        return Progress(stage="tiles", tiles_done=self._done, tiles_total=self._total, tiles_per_second=rate, seconds_left=left)
