"""Outlines of the regions of a mask, along the edges of its cells, so that an outline's area is exactly that of its cells."""

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

    # Corners (x, y) in cells, not closed; the holes likewise.
    shell: NDArray[np.int32]
    holes: tuple[NDArray[np.int32], ...]
    # Its area in cells.
    cells: int


def factor(rows: int, columns: int, edge: int) -> int:
    """How many pixels of a mask go into one cell along each axis: the least divisor of a block's edge at which the blocks fit."""
    fitting = (size for size in range(1, edge + 1) if edge % size == 0 and rows * columns * (edge // size) ** 2 <= MOST_CELLS)
    return next(fitting, edge)


def reduced(labels: NDArray[np.uint8], size: int, classes: int) -> NDArray[np.uint8]:
    """The commonest value of each block of pixels from 0 to `classes`, the first of equals; blocks at the edge are what is left."""
    if size == 1:
        return labels
    padded = np.pad(labels, ((0, -labels.shape[0] % size), (0, -labels.shape[1] % size)), constant_values=classes + 1)
    blocks = padded.reshape(padded.shape[0] // size, size, padded.shape[1] // size, size)
    counts = np.stack([(blocks == value).sum(axis=(1, 3), dtype=np.int32) for value in range(classes + 1)])
    commonest: NDArray[np.uint8] = counts.argmax(axis=0).astype(np.uint8)
    return commonest


def outlines(mask: NDArray[np.bool_], *, least_cells: float) -> Iterator[Outline]:
    """Each region of at least so many cells, in reading order of its first cell. Rings neither cross nor touch themselves."""
    # Cells that only touch at a corner belong to two regions; a ring around both would touch itself.
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    for label in range(1, count):
        left, top, width, height, cells = (int(value) for value in statistics[label])
        if cells >= least_cells:
            shell, holes = _rings(labels[top : top + height, left : left + width] == label)
            corner = np.array((left, top), np.int32)
            yield Outline(shell=shell + corner, holes=tuple(hole + corner for hole in holes), cells=cells)


def placed(ring: NDArray[np.int32], *, origin: tuple[float, float], scale: tuple[float, float], most: tuple[float, float]) -> Corners:
    """A ring in level-0 pixels. `origin`: the mask's corner in cells; `scale`: level-0 pixels per cell along x and y.

    `most`: the slide's width and height, at which cells that reach past its edge are cut.
    """
    return tuple((x, y) for x, y in np.minimum((ring + origin) * scale, most).tolist())


def _rings(region: NDArray[np.bool_]) -> tuple[NDArray[np.int32], list[NDArray[np.int32]]]:
    """The outer ring, and those of the holes, of a region that hangs together by edges."""
    # OpenCV traces the middles of cells. Of cells doubled, the half-cells traced at an even place lie at the near edge of their cell
    # and those at an odd place at the far one.
    doubled = region.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [_simple(np.asarray((contour[:, 0, :] + 1) // 2, np.int32)) for contour in found]
    outer = next(index for index in range(len(rings)) if hierarchy[0][index][3] < 0)
    return rings[outer], [ring for index, ring in enumerate(rings) if index != outer]


def _simple(ring: NDArray[np.int32]) -> NDArray[np.int32]:
    """Without repeated points, and without those on a straight line."""
    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0] != 0
    kept: NDArray[np.int32] = ring[turns]
    return kept
