"""What masks of cells have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.values import Pixels
from inference_server.threads import side_by_side

Mask = NDArray[np.bool_]
T = TypeVar("T")
# Rows of cells that are worked on at once: of what grows with a slide's area, next to nothing is held beside the result.
_STRIPE_ROWS = 128
# Where something is set, so many columns are worked on at least, and so many blocks of them at most.
_SPAN_COLUMNS, _MOST_SPANS = 64, 8
# Colours that tell what stains a slide has.
_MOST_COLOURS = 200_000


@dataclass(frozen=True, kw_only=True)
class PackedMask:
    """A mask that is seldom looked at, in an eighth of the memory."""

    shape: tuple[int, int]
    # Eight cells a byte, row after row.
    bits: NDArray[np.uint8]

    @staticmethod
    def of(mask: Mask) -> PackedMask:
        """Pack it."""
        return PackedMask(shape=(mask.shape[0], mask.shape[1]), bits=np.packbits(mask))

    def unpacked(self) -> Mask:
        """A copy by cells."""
        return np.unpackbits(self.bits, count=self.shape[0] * self.shape[1]).view(np.bool_).reshape(self.shape)


def stripes(rows: int, at_a_time: int = _STRIPE_ROWS) -> Iterator[slice]:
    """All rows, from the first to the last, some at a time."""
    return (slice(start, min(start + at_a_time, rows)) for start in range(0, rows, at_a_time))


def by_stripes(rows: int, work: Callable[[slice], T], at_a_time: int = _STRIPE_ROWS) -> list[T]:
    """What a work makes of each stripe, in their order; two at a time, for work in code that lets another thread go on."""
    every = list(stripes(rows, at_a_time))
    found, others = side_by_side(lambda: [work(stripe) for stripe in every[::2]], lambda: [work(stripe) for stripe in every[1::2]])
    for place, other in enumerate(others):
        found.insert(2 * place + 1, other)
    return found


def colours_where(mask: Mask, colours: Pixels) -> Pixels:
    """RGB of some cells in reading order, count × 3: by their numbers, a fifth of the time that the mask itself takes."""
    return np.take(colours.reshape(-1, 3), np.flatnonzero(mask), axis=0)


def some_of(colours: Pixels) -> Pixels:
    """Of many colours in a row, every so-many-th; of those that it gives, all."""
    return colours[:: max(len(colours) // _MOST_COLOURS, 1)]


def spans(mask: Mask) -> Iterator[slice]:
    """Columns of a stripe of cells that hold all that is set, and few others: most of a slide is glass."""
    width = mask.shape[1]
    found = np.logical_or.reduceat(mask.any(axis=0), np.arange(0, width, _SPAN_COLUMNS))
    edges = np.flatnonzero(np.diff(found, prepend=False, append=False)).tolist()
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        for start in range(first, end, _MOST_SPANS):
            yield slice(start * _SPAN_COLUMNS, min(min(start + _MOST_SPANS, end) * _SPAN_COLUMNS, width))


def majority(mask: Mask, edge: int) -> Mask:
    """Each cell takes the majority of the `edge` × `edge` cells around it, which drops specks and closes pinholes."""
    if not mask.any():
        return mask
    # Past the edge a cell's own row or column goes on, so that what is cut by the edge keeps its border there.
    counts = cv2.boxFilter(mask.view(np.uint8), -1, (edge, edge), normalize=False, borderType=cv2.BORDER_REPLICATE)
    found: Mask = counts > edge**2 // 2
    return found


def grown(sure: Mask, likely: Mask, least_share: float = 0.0) -> Mask:
    """What is sure, and what is likely and hangs together with it: regions of which at least a share is sure. Both masks are changed.

    Regions are numbered stripe by stripe, and those that touch across an edge joined: numbers of all cells are four bytes for each.
    """
    likely |= sure
    surely, cells, firsts, touching = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [0], list[NDArray[np.int64]]()
    above = np.zeros(likely.shape[1], np.int64)
    for rows in stripes(len(likely)):
        count, labels = _regions(likely[rows])
        surely.append(np.bincount(labels[sure[rows]], minlength=count))
        if least_share:
            cells.append(np.bincount(labels.reshape(-1), minlength=count))
        first, last = (np.where(line > 0, line.astype(np.int64) + firsts[-1], 0) for line in (labels[0], labels[-1]))
        touching.append(_touching(above, first))
        above = last
        firsts.append(firsts[-1] + count)
    roots = _joined(firsts[-1], np.concatenate([np.zeros((0, 2), np.int64), *touching]))
    sums = np.bincount(roots, np.concatenate(surely), firsts[-1])
    kept = sums > 0
    if least_share:
        kept &= sums >= least_share * np.bincount(roots, np.concatenate(cells), firsts[-1])
    kept = kept[roots]
    # The first of each stripe is what is not likely.
    kept[firsts[:-1]] = False
    for rows, start in zip(stripes(len(likely)), firsts, strict=False):
        sure[rows] |= kept[start:][_regions(likely[rows])[1]]
    return sure


def _regions(mask: Mask) -> tuple[int, NDArray[np.int32]]:
    """How many numbers there are, and that of each cell's region; 0 where nothing is set."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return count, np.asarray(labels, np.int32)


def _touching(above: NDArray[np.int64], below: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of numbers in two rows that touch by an edge or a corner; 0 where there is none."""
    pairs = [(above, below), (above[1:], below[:-1]), (above[:-1], below[1:])]
    keys = np.unique(np.concatenate([(one * 2**32 + other)[(one > 0) & (other > 0)] for one, other in pairs]))
    return np.stack(np.divmod(keys, 2**32), axis=1)


def _joined(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of numbers from 0, which one stands for all that hang together by pairs."""
    parents = np.arange(count)
    for one, other in pairs.tolist():
        first, second = (_root(parents, number) for number in (one, other))
        parents[max(first, second)] = min(first, second)
    while (parents != parents[parents]).any():
        parents = parents[parents]
    return parents


def _root(parents: NDArray[np.int64], number: int) -> int:
    while (parent := int(parents[number])) != number:
        parents[number] = parents[parent]
        number = parent
    return number
