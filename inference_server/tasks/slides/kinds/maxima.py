"""Local maxima of a filter's response, and which of them lie near one another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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


def of_all(some: Sequence[S], work: Callable[[S], T]) -> list[T]:
    """What a work makes of each of some scales, two at a time."""
    first, others = side_by_side(lambda: [work(each) for each in some[::2]], lambda: [work(each) for each in some[1::2]])
    return [(others if place % 2 else first)[place // 2] for place in range(len(some))]


def strongest(maxima: Sequence[Maxima], scores: Sequence[NDArray[np.float32]], reaches: Sequence[float]) -> list[NDArray[np.bool_]]:
    """Which of some maxima by scale, finest first, stay: from the greatest score down those that lie near none that stays.

    Near is within the coarser one's reach, of `reaches` in grid pixels. Of equal scores the finer scale's, and the first, stays.
    """
    ends = np.cumsum([len(each.x) for each in maxima])
    winners, losers = _contests(joined(*maxima), np.concatenate(scores), reaches, ends)
    kept, open_ = np.zeros(ends[-1], np.bool_), np.ones(ends[-1], np.bool_)
    while open_.any():
        beaten = np.zeros(ends[-1], np.bool_)
        beaten[losers] = True
        new = open_ & ~beaten
        kept |= new
        open_ &= beaten
        open_[losers[new[winners]]] = False
        both = np.flatnonzero(open_[winners] & open_[losers])
        winners, losers = winners[both], losers[both]
    return np.split(kept, ends[:-1].tolist())


def _contests(
    together: Maxima, scores: NDArray[np.float32], reaches: Sequence[float], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Of each two that are near each other the one that goes first, and the other; those of a scale end where the next one's begin."""
    found: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = [(np.empty(0, np.int32), np.empty(0, np.int32))]
    start = 0
    for end, reach in zip(ends.tolist(), reaches, strict=True):
        up_to = together.where(slice(0, end))
        found += _near_before(up_to, start, scores, reach)
        start = end
    winners, losers = (np.concatenate(each) for each in zip(*found, strict=True))
    return winners, losers


def _near_before(
    maxima: Maxima, start: int, scores: NDArray[np.float32], reach: float
) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """The contests of all from a start on with those before them."""
    around, these = Neighbourhoods(maxima, math.ceil(reach)), maxima.where(slice(start, None))

    def find(some: slice) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        contests = []
        for one, other in around.pairs(these.where(some)):
            one = one + (start + some.start)
            x, y = maxima.x[one] - maxima.x[other], maxima.y[one] - maxima.y[other]
            near = np.flatnonzero((x * x + y * y < reach * reach) & (other < one))
            later, earlier = one[near].astype(np.int32), other[near].astype(np.int32)
            first = scores[later] > scores[earlier]
            contests.append((np.where(first, later, earlier), np.where(first, earlier, later)))
        return contests

    return [each for found in by_stripes(len(these.x), find, at_a_time=_PORTION) for each in found]
