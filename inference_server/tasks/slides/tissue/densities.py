"""Optical densities of a slide's cells, from its own white, made stripe by stripe: whole, they would take hundreds of MB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.readers.regions import WHITE
from inference_server.tasks.slides.tissue.cells import by_stripes, colours_where
from inference_server.tasks.slides.values import Pixels

# A slide's white is sought among cells at least this bright in all channels; else it is taken as 245.
_GLASS = 215
_DEFAULT_WHITE = 245.0
# Of the glass in each channel, in percent: dust and shadows lie below.
_WHITE_PERCENT = 90

# What was not scanned is pure white, and tells nothing of glass that has a tint. The rest of what is bright is glass where so much of it
# lies within so many levels of its median, in each channel, and no more beyond: pale tissue on a background that was painted
# white varies more.
_GLASS_LEVELS, _LEAST_GLASS, _MOST_BEYOND = 3, 0.6, 0.1
# Greatest optical density by which the medians of its channels differ: even and pale, but more coloured, is tissue.
_MOST_TINT = 0.03

Plane = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Densities:
    """Of some cells, each array of the same shape."""

    red: Plane
    green: Plane
    blue: Plane

    @property
    def mean(self) -> Plane:
        """Over R, G and B."""
        mean: Plane = (self.red + self.green + self.blue) / np.float32(3)
        return mean

    @property
    def densest(self) -> Plane:
        """The densest channel."""
        return np.maximum(np.maximum(self.red, self.green), self.blue)

    @property
    def spread(self) -> Plane:
        """Between the densest channel and the clearest."""
        spread: Plane = self.densest - np.minimum(np.minimum(self.red, self.green), self.blue)
        return spread

    def where(self, kept: NDArray[np.bool_]) -> Densities:
        """Some of them, in reading order."""
        return Densities(red=self.red[kept], green=self.green[kept], blue=self.blue[kept])


class CellDensities:
    """Of all cells of a slide."""

    def __init__(self, cells: Pixels, *, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> None:
        """`cells`: mean colours, rows × columns × RGB; `rows`, `columns`: how much of each lies on the slide."""
        self._cells = cells
        self._rows, self._columns = rows, columns
        self._table = _table(self._white())

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._cells.shape[0], self._cells.shape[1]

    def by_stripes(self, work: Callable[[slice, Densities], T]) -> list[T]:
        """What a work makes of some rows and their densities, from the first to the last."""

        def made(rows: slice) -> T:
            red, green, blue = cv2.split(cv2.LUT(self._colours(rows), self._table))
            return work(rows, Densities(red=np.asarray(red), green=np.asarray(green), blue=np.asarray(blue)))

        return by_stripes(len(self._cells), made)

    def where(self, mask: NDArray[np.bool_], work: Callable[[Densities], T]) -> list[T]:
        """What a work makes of some cells in reading order, stripe by stripe: of few far faster than of all."""

        def made(rows: slice) -> T:
            colours = colours_where(mask[rows], self._colours(rows))
            red, green, blue = (self._table[colours[:, channel], 0, channel] for channel in range(3))
            return work(Densities(red=red, green=green, blue=blue))

        return by_stripes(len(self._cells), made)

    def _colours(self, rows: slice) -> Pixels:
        """Mean colours of the part of each cell that lies on the slide: past its edge there is white."""
        colours, down, across = self._cells[rows], self._rows[rows], self._columns
        corrected = colours.copy()
        for partial in (np.ix_(down < 1, across > 0), np.ix_(down > 0, across < 1)):
            share = (down[:, None] * across)[partial][..., None]
            corrected[partial] = np.clip(np.round((colours[partial] - WHITE * (1 - share)) / share), 0, WHITE).astype(np.uint8)
        return corrected

    def _white(self) -> NDArray[np.float64]:
        """By channel."""
        counts, pure = zip(*by_stripes(len(self._cells), self._bright), strict=True)
        bright, unscanned = np.sum(counts, axis=0), sum(pure)
        scanned = bright.copy()
        scanned[:, WHITE] -= unscanned
        is_framed = unscanned >= (1 - _WHITE_PERCENT / 100) * bright[0].sum()
        glass = scanned if is_framed and _is_glass(scanned) else bright
        return np.array([percentile(each, _WHITE_PERCENT) for each in glass]) if glass.any() else np.full(3, _DEFAULT_WHITE)

    def _bright(self, rows: slice) -> tuple[NDArray[np.int64], int]:
        """How many bright cells have each level of a channel, [channel, level]; and how many are pure white."""
        colours = self._colours(rows)
        white = np.full(3, WHITE)
        bright = cv2.inRange(colours, np.full(3, _GLASS), white)
        found = [cv2.calcHist([colours], [channel], bright, [WHITE + 1], [0, WHITE + 1]).reshape(-1) for channel in range(3)]
        return np.array(found).astype(np.int64), cv2.countNonZero(cv2.inRange(colours, white, white))


def _is_glass(counts: NDArray[np.int64]) -> bool:
    """Whether what is bright, and no pure white, is even and nearly colourless. `counts`: [channel, level]."""
    if not counts.any():
        return False
    medians = [percentile(each, 50) for each in counts]
    return bool(np.log10(max(medians) / min(medians)) <= _MOST_TINT) and all(map(_is_even, counts))


def _is_even(counts: NDArray[np.int64]) -> bool:
    """Whether a channel lies near its median, and little beyond."""
    total = counts.sum()
    middle = round(percentile(counts, 50))
    near = counts[max(middle - _GLASS_LEVELS, 0) : middle + _GLASS_LEVELS + 1].sum()
    beyond = counts[middle + _GLASS_LEVELS + 1 :].sum()
    return bool(near >= _LEAST_GLASS * total and beyond <= _MOST_BEYOND * total)


def percentile(counts: NDArray[np.int64], percent: float) -> float:
    """Of whole numbers from 0 that occur so often: as `np.percentile` of them all."""
    place = (counts.sum() - 1) * (percent / 100)
    upto = np.cumsum(counts)
    below, above = (int(np.searchsorted(upto, np.floor(place) + step, side="right")) for step in (0, 1))
    share = place % 1
    return below + (min(above, len(counts) - 1) - below) * share if share else float(below)


def _table(white: NDArray[np.float64]) -> NDArray[np.float32]:
    """A density by level and channel, [256, 1, 3]: a logarithm for each of 256 values instead of each cell."""
    density = np.maximum(-np.log10(np.maximum(np.arange(WHITE + 1), 1)[:, None] / white[None, :]), 0)
    return density.astype(np.float32)[:, None, :]
