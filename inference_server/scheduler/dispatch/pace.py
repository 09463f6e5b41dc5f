"""Whether a model of two cores is faster with two batches side by side: weights that two batches read by turns take twice as long."""

from __future__ import annotations

from collections import deque

# Runs of each way that are compared.
_RUNS = 6
# Runs for which the other way is tried: about two of them began before it or beside what did.
_TRIED = 8
# Runs between two trials: of 64 callers of MiniLM some 8 seconds, of which the trial costs less than a hundredth.
_BETWEEN = 256
# How much faster two at a time must be: a request waits longer for a batch of one core.
_GAIN = 1.02


class Pace:
    """Compares both ways by their last runs while much waits, and has the slower one tried now and then."""

    def __init__(self) -> None:
        # Whether two batches are to run side by side now.
        self.pairs = False
        # Bytes of inputs and seconds of the last runs: those alone, and those beside others.
        self._alone: deque[tuple[int, float]] = deque(maxlen=_RUNS)
        self._paired: deque[tuple[int, float]] = deque(maxlen=_RUNS)
        self._is_trial = False
        # Runs until the other way has its turn.
        self._left = _TRIED

    def ran(self, size: int, seconds: float, *, began_beside: bool, ended_beside: bool) -> None:
        """A run that began while much waited has ended; `began_beside`, `ended_beside`: whether another one ran then."""
        if began_beside == ended_beside:
            (self._paired if began_beside else self._alone).append((size, seconds))
        self._left -= 1
        if self._left:
            return
        if self._is_trial:
            self.pairs = self._pairs_are_faster()
        else:
            self.pairs = not self.pairs
        self._is_trial = not self._is_trial
        self._left = _TRIED if self._is_trial else _BETWEEN

    def _pairs_are_faster(self) -> bool:
        if not (self._alone and self._paired):
            return False
        return 2 * _rate(self._paired) >= _GAIN * _rate(self._alone)


def _rate(runs: deque[tuple[int, float]]) -> float:
    """Bytes a second: rows of different widths are not equally much work."""
    return sum(size for size, _ in runs) / max(sum(seconds for _, seconds in runs), 1e-9)
