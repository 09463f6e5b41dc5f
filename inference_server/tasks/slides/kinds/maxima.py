"""Local maxima of a filter's response, and which of them lie near one another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.tissue.cells import by_stripes
from inference_server.threads import side_by_side

S = TypeVar("S")
T = TypeVar("T")
# Of the numbers of places, more than any row is wide.
_ROW = 2**31
_PORTION = 2**15
# Rounds after which those that are not decided are few, but for patterns that no tissue has.
_ROUNDS = 64


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

    def between(self, top: int, bottom: int | None) -> slice:
        """Those of the rows from one up to another, or to the last."""
        # Among numbers of another type they would be sought in a copy of all rows.
        first, end = (None if row is None else int(np.searchsorted(self.y, np.int32(row))) for row in (top, bottom))
        return slice(first, end)


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
    starts = np.cumsum([0, *(len(each.x) for each in maxima)]).tolist()
    every = np.concatenate(scores)
    contests = [each for scale, reach in enumerate(reaches) for each in _contests(maxima[: scale + 1], starts, every, reach)]
    winners, losers = (np.concatenate([np.empty(0, np.int32), *(each[side] for each in contests)]) for side in range(2))
    del contests
    kept, open_ = np.zeros(len(every), np.bool_), np.ones(len(every), np.bool_)
    for _ in range(_ROUNDS):
        if not open_.any():
            break
        beaten = np.zeros(len(every), np.bool_)
        beaten[losers] = True
        new = open_ & ~beaten
        kept |= new
        open_ &= beaten
        open_[losers[new[winners]]] = False
        both = np.flatnonzero(open_[winners] & open_[losers])
        winners, losers = winners[both], losers[both]
    _one_by_one(kept, open_, every, winners, losers)
    return np.split(kept, starts[1:-1])


def _one_by_one(
    kept: NDArray[np.bool_], open_: NDArray[np.bool_], scores: NDArray[np.float32], winners: NDArray[np.int32], losers: NDArray[np.int32]
) -> None:
    """Decide those that are open still, from the greatest score down: a long row of ever greater ones would take a round each."""
    undecided = np.flatnonzero(open_)
    order = np.argsort(winners, kind="stable")
    beaten_by, losers = winners[order], losers[order]
    starts, ends = (np.searchsorted(beaten_by, undecided, side=side).tolist() for side in ("left", "right"))
    for place in np.argsort(-scores[undecided], kind="stable").tolist():
        one = undecided[place]
        if open_[one]:
            kept[one] = True
            open_[losers[starts[place] : ends[place]]] = False


def _contests(
    maxima: Sequence[Maxima], starts: Sequence[int], scores: NDArray[np.float32], reach: float
) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Of each two that are near each other, one of them of the last scale, the one that goes first, and the other."""
    *_, these = maxima
    first_of_these = starts[len(maxima) - 1]

    def find(some: slice) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        mine = these.where(some)
        those, places = _rows(maxima, starts, math.ceil(mine.y[0] - reach), math.floor(mine.y[-1] + reach) + 1)
        found = [np.empty((2, 0), np.int32)]
        for one, other in Neighbourhoods(those, math.ceil(reach)).pairs(mine):
            x, y = mine.x[one] - those.x[other], mine.y[one] - those.y[other]
            later, earlier = (one + (first_of_these + some.start)).astype(np.int32), places[other]
            near = np.flatnonzero((x * x + y * y < reach * reach) & (earlier < later))
            later, earlier = later[near], earlier[near]
            first = scores[later] > scores[earlier]
            found.append(np.stack([np.where(first, later, earlier), np.where(first, earlier, later)]))
        winners, losers = np.concatenate(found, axis=1)
        return winners, losers

    return by_stripes(len(these.x), find, at_a_time=_PORTION)


def _rows(maxima: Sequence[Maxima], starts: Sequence[int], top: int, bottom: int) -> tuple[Maxima, NDArray[np.int32]]:
    """Those of some rows, and their places among the maxima of all scales."""
    some = [each.between(top, bottom) for each in maxima]
    places = [np.arange(start + rows.start, start + rows.stop, dtype=np.int32) for start, rows in zip(starts, some, strict=False)]
    return joined(*(each.where(rows) for each, rows in zip(maxima, some, strict=True))), np.concatenate(places)
