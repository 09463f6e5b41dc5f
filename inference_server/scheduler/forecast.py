"""How long a run takes at least, so that none is begun that nobody can have the answer of."""

from __future__ import annotations

from collections import deque

# Runs that are looked back on, and fewest that say anything.
_RUNS = 16
_FEWEST = 3
# What is left of the forecast after each request that it turned away: a run that was slow for a while is tried again soon.
_DOUBT = 0.9


class Forecast:
    """The fastest of the last runs: a bound from below, for a request that might be answered in time is run."""

    def __init__(self) -> None:
        self._runs: deque[float] = deque(maxlen=_RUNS)
        self._trust = 1.0

    @property
    def seconds(self) -> float:
        """What a run takes at least; 0 while too few are known."""
        return min(self._runs) * self._trust if len(self._runs) >= _FEWEST else 0.0

    def ran(self, seconds: float) -> None:
        """A run took so long."""
        self._runs.append(seconds)
        self._trust = 1.0

    def turned_away(self) -> None:
        """A request was not run because of the forecast."""
        self._trust *= _DOUBT
