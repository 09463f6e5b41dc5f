"""Local maxima of a filter's response, and which of them lie near one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Maxima:
    """Local maxima of one scale's response, in reading order."""

    # Grid pixels from the slide's corner.
    x: NDArray[np.int32]
    y: NDArray[np.int32]
    # OD.
    response: NDArray[np.float32]

    def where(self, kept: NDArray[np.bool_] | NDArray[np.int64]) -> Maxima:
        """Some of them, or all in another order."""
        return Maxima(x=self.x[kept], y=self.y[kept], response=self.response[kept])


def joined(*some: Maxima) -> Maxima:
    """All of them, one after another."""
    x, y, response = (np.concatenate([getattr(each, name) for each in some]) for name in ("x", "y", "response"))
    return Maxima(x=x, y=y, response=response)


def in_reading_order(x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.int64]:
    """A number for each place, to sort by: many times as fast as by two keys."""
    return y.astype(np.int64) * 2**31 + x


def near(these: Maxima, those: Maxima, reach: int) -> NDArray[np.bool_]:
    """Which of these have one of those within so many grid pixels, along rows and along columns."""
    found = np.zeros(len(these.x), np.bool_)
    for one, _ in neighbours(these, those, reach):
        found[one] = True
    return found


def neighbours(these: Maxima, those: Maxima, reach: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of these and those within so many grid pixels, along rows and along columns, by their indices; none of these twice at once.

    Sought in squares of the reach, and the eight around each.
    """
    key = in_reading_order(those.x // reach, those.y // reach)
    order = np.argsort(key, kind="stable")
    key, x, y = key[order], those.x[order], those.y[order]
    for down in (-1, 0, 1):
        row = (these.y.astype(np.int64) // reach + down) * 2**31
        # A row's three neighbouring squares follow one another among the keys; each holds a few maxima at most.
        first = np.searchsorted(key, row + these.x // reach - 1)
        last = np.searchsorted(key, row + these.x // reach + 1, side="right")
        for step in range(int((last - first).max(initial=0))):
            index = np.minimum(first + step, len(key) - 1)
            close = (first + step < last) & (np.abs(x[index] - these.x) <= reach) & (np.abs(y[index] - these.y) <= reach)
            one = np.flatnonzero(close)
            yield one, order[index[one]]
