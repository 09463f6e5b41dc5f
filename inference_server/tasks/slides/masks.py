"""What masks of cells have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.values import Pixels

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


def by_stripes(rows: int, work: Callable[[slice], T]) -> list[T]:
    """What a work makes of each stripe, in their order; two at a time, for work in code that lets another thread go on."""
    every = list(stripes(rows))
    # By one more thread and no other, since each may keep memory of its own.
    with ThreadPoolExecutor(1) as beside:
        others = beside.submit(lambda: [work(stripe) for stripe in every[1::2]])
        found = [work(stripe) for stripe in every[::2]]
    for place, other in enumerate(others.result()):
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
    """What is sure, and what is likely and hangs together with it: regions of which at least a share is sure. Both masks are changed."""
    likely |= sure
    count, labels = cv2.connectedComponents(likely.view(np.uint8), connectivity=8)
    kept = np.zeros(count, np.bool_)
    if least_share:
        surely, cells = np.zeros(count, np.int64), np.zeros(count, np.int64)
        for rows in stripes(len(labels)):
            surely += np.bincount(labels[rows][sure[rows]], minlength=count)
            cells += np.bincount(labels[rows].reshape(-1), minlength=count)
        kept = (surely > 0) & (surely >= least_share * cells)
    else:
        kept[labels[sure]] = True
    kept[0] = False
    for rows in stripes(len(labels)):
        sure[rows] |= kept[labels[rows]]
    return sure
