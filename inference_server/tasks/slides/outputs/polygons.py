"""Outlines of the regions of a mask, along the edges of its cells, so that an outline's area is exactly that of its cells.

A large mask has coarser cells. Each block of it (a tile) is cut into whole ones for itself, some of which are a pixel larger than others
where the block's edge is no multiple: so any block can be, and what is cut block by block has no seams.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.findings import Corners

# Of the mask that is outlined at once; with its labels five bytes a cell.
MOST_CELLS = 2**24


@dataclass(frozen=True, kw_only=True)
class Outline:
    """One region of cells that share edges."""

    # Corners (x, y) in pixels of the mask, not closed, in the order that GeoJSON wants (RFC 7946, 3.1.6); the holes likewise.
    shell: NDArray[np.int64]
    holes: tuple[NDArray[np.int64], ...]

    @property
    def area(self) -> float:
        """In pixels of the mask."""
        return _area(self.shell) - sum(_area(hole) for hole in self.holes)


def cells_of(rows: int, columns: int, edge: int) -> int:
    """Into how many cells the edge of each block of a mask goes, so that all fit: of one pixel, else of the fewest that do, or one more."""
    blocks = rows * columns
    return next((edge // size for size in range(1, edge) if blocks * (edge // size) ** 2 <= MOST_CELLS), 1)


def lines(edge: int, cells: int, *, first: int = 0, count: int = 1) -> NDArray[np.int64]:
    """Where the cells of some blocks in a row begin, and the last one ends, in pixels. Blocks begin with a cell, whatever their edge."""
    return np.arange(first * cells, (first + count) * cells + 1) * edge // cells


def reduced(labels: NDArray[np.uint8], within: NDArray[np.int64], classes: int) -> NDArray[np.uint8]:
    """The commonest value from 0 to `classes` of each cell of a block, the first of equals; 0 past the labels.

    `within`: the block's lines, along both axes.
    """
    rows, columns = (np.minimum(within, side) for side in labels.shape)
    counts = [_summed(labels == value, rows, columns) for value in range(classes + 1)]
    commonest: NDArray[np.uint8] = np.argmax(counts, axis=0).astype(np.uint8)
    return commonest


def outlines(mask: NDArray[np.bool_], *, across: NDArray[np.int64], down: NDArray[np.int64], least: float) -> Iterator[Outline]:
    """Each region of at least so many pixels, in reading order of its first cell. Rings neither cross nor touch themselves.

    `across`, `down`: where columns and rows of cells begin, and the last ones end, in pixels.
    """
    largest = np.diff(across).max() * np.diff(down).max()
    # Cells that only touch at a corner belong to two regions; a ring around both would touch itself.
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    for label in range(1, count):
        left, top, width, height, cells = (int(value) for value in statistics[label])
        if cells * largest < least:
            continue
        rings = _rings(labels[top : top + height, left : left + width] == label)
        shell, *holes = (np.stack([across[left + ring[:, 0]], down[top + ring[:, 1]]], axis=1) for ring in rings)
        found = Outline(shell=shell, holes=tuple(holes))
        if found.area >= least:
            yield found


def placed(ring: NDArray[np.int64], *, scale: tuple[float, float], most: tuple[float, float]) -> Corners:
    """A ring in level-0 pixels. `scale`: level-0 pixels per pixel of the mask along x and y.

    `most`: the slide's width and height, at which pixels that reach past its edge are cut.
    """
    return tuple((x, y) for x, y in np.minimum(ring * scale, most).tolist())


def _summed(mask: NDArray[np.bool_], rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int32]:
    """How many pixels are set between the lines."""
    sums = np.asarray(cv2.integral(mask.view(np.uint8)), np.int32)[np.ix_(rows, columns)]
    return np.diff(np.diff(sums, axis=0), axis=1)


def _area(ring: NDArray[np.int64]) -> float:
    x, y = ring.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _rings(region: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    """The outer ring, then those of the holes, of a region that hangs together by edges; in cells."""
    # OpenCV traces the middles of cells. Of cells doubled, the half-cells traced at an even place lie at the near edge of their cell
    # and those at an odd place at the far one.
    doubled = region.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    # It goes round a region with the clock, by x to the right and y upwards, and round a hole against it; GeoJSON has it the other way.
    rings = [_simple(np.asarray((contour[::-1, 0, :] + 1) // 2, np.int32)) for contour in found]
    outer = next(index for index in range(len(rings)) if hierarchy[0][index][3] < 0)
    return [rings.pop(outer), *rings]


def _simple(ring: NDArray[np.int32]) -> NDArray[np.int32]:
    """Without repeated points, and without those on a straight line."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0] != 0
    kept: NDArray[np.int32] = ring[turns]
    return kept
