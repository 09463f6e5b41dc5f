"""Local maxima of a filter's response, and which of them lie near one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.masks import by_stripes
from inference_server.threads import side_by_side

S = TypeVar("S")
T = TypeVar("T")
# Of the numbers of places, more than any row is wide.
_ROW = 2**31
_PORTION = 2**15


@dataclass(frozen=True, kw_only=True)
class Maxima:
    """Local maxima of one scale's response, in reading order."""

    # Grid pixels from the slide's corner.
    x: NDArray[np.int32]
    y: NDArray[np.int32]
    # OD.
    response: NDArray[np.float32]

    def where(self, kept: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Maxima:
        """Some of them, or all in another order."""
        return Maxima(x=self.x[kept], y=self.y[kept], response=self.response[kept])


def joined(*some: Maxima) -> Maxima:
    """All of them, one after another."""
    x, y, response = (np.concatenate([getattr(each, name) for each in some]) for name in ("x", "y", "response"))
    return Maxima(x=x, y=y, response=response)


def in_reading_order(x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.int64]:
    """A number for each place, to sort by: many times as fast as by two keys."""
    return y.astype(np.int64) * _ROW + x


class Neighbourhoods:
    """Some maxima by squares of a reach, so that those near others are found among few."""

    def __init__(self, those: Maxima, reach: int) -> None:
        """`reach`: grid pixels, along rows and along columns."""
        self._reach = reach
        key = self._squares(those)
        self._order = np.argsort(key, kind="stable")
        # An end that no square reaches.
        self._key = np.append(key[self._order], np.iinfo(np.int64).max)
        self._x, self._y = those.x[self._order], those.y[self._order]

    def pairs(self, these: Maxima) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """These and those within the reach, by their indices; none of these twice at once."""
        own = self._squares(these)
        # Sought one after another where they lie, what is looked at stays in the cache.
        turns = np.argsort(own, kind="stable")
        own, x, y = own[turns], these.x[turns], these.y[turns]
        for row in (-_ROW, 0, _ROW):
            # A row's three neighbouring squares follow one another among the keys; each holds a few maxima at most.
            one, other, last = np.arange(len(own)), np.searchsorted(self._key, own + (row - 1)), own + (row + 1)
            while len(one):
                some = np.flatnonzero(self._key[other] <= last)
                one, other, last = one[some], other[some], last[some]
                close = (np.abs(self._x[other] - x[one]) <= self._reach) & (np.abs(self._y[other] - y[one]) <= self._reach)
                yield turns[one[close]], self._order[other[close]]
                other = other + 1

    def _squares(self, maxima: Maxima) -> NDArray[np.int64]:
        return in_reading_order(maxima.x // self._reach, maxima.y // self._reach)


def near(these: Maxima, those: Maxima, reach: int) -> NDArray[np.bool_]:
    """Which of these have one of those within so many grid pixels, along rows and along columns."""
    around, found = Neighbourhoods(those, reach), np.zeros(len(these.x), np.bool_)

    def find(some: slice) -> None:
        for one, _ in around.pairs(these.where(some)):
            found[some][one] = True

    by_portions(these, find)
    return found


def of_both(fine: S, coarse: S, work: Callable[[S], T]) -> tuple[T, T]:
    """What a work makes of each of two scales, side by side."""
    return side_by_side(lambda: work(fine), lambda: work(coarse))


def by_portions(maxima: Maxima, work: Callable[[slice], None]) -> None:
    """Work on some after others, so few that what is computed of them fits into a core's cache, and two times so many at a time."""
    by_stripes(len(maxima.x), work, at_a_time=_PORTION)
