"""How long a run takes at least, so that none is begun that nobody can have the answer of."""

from __future__ import annotations

import math
from collections import deque

# Runs that are looked back on, and fewest that say anything.
_RUNS = 16
_FEWEST = 3
# What is left of the forecast each time that it has turned requests away for as long as a run: what was slow for a while is tried again.
_DOUBT = 0.9


class Forecast:
    """The fastest of the last runs: a bound from below, for a request that might be answered in time is run."""

    def __init__(self) -> None:
        self._runs: deque[float] = deque(maxlen=_RUNS)
        self._trust = 1.0
        # `time.monotonic()` of the last run, or of the last doubt.
        self._since = -math.inf

    @property
    def seconds(self) -> float:
        """What a run takes at least; 0 while too few are known."""
        return min(self._runs) * self._trust if len(self._runs) >= _FEWEST else 0.0

    @property
    def usual_seconds(self) -> float:
        """What a run takes on average; 0 while none is known."""
        return sum(self._runs) / len(self._runs) if self._runs else 0.0

    def ran(self, seconds: float, now: float) -> None:
        """A run took so long."""
        self._runs.append(seconds)
        self._trust = 1.0
        self._since = now

    def turned_away(self, now: float) -> None:
        """A request was not run because of the forecast."""
        if now - self._since >= self.seconds:
            self._trust *= _DOUBT
            self._since = now
