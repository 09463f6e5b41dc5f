"""Fragments that were read, as boxes on a page that is turned straight, and the rows in which they stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from inference_server.tasks.documents.detection.curved import parts_of, tangent_of
from inference_server.tasks.documents.values import Outline, Quad, Word

# A gutter between columns is at least this wide, in usual text heights.
GUTTER_HEIGHTS = 0.8
# A fragment that is this much higher than wide runs upwards and belongs to no row.
_UPRIGHT_RATIO = 1.5


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """What was read in one outline of the detector."""

    # Of text that bends: the one that touches its middle.
    quad: Quad
    words: tuple[Word, ...]
    # The straight parts of text that bends, from left to right.
    parts: tuple[Quad, ...] = ()

    @property
    def quads(self) -> tuple[Quad, ...]:
        """What it covers."""
        return self.parts or (self.quad,)


def fragment_of(outline: Outline, words: Iterable[Word]) -> Fragment:
    """What was read within an outline."""
    if len(outline) == 4:
        return Fragment(quad=outline, words=tuple(words))
    return Fragment(quad=tangent_of(outline), words=tuple(words), parts=parts_of(outline))


@dataclass(frozen=True, kw_only=True)
class Box:
    """A fragment's bounds once the page is turned straight."""

    left: float
    right: float
    top: float
    bottom: float
    fragment: Fragment

    @property
    def height(self) -> float:
        """Across the text, in pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> float:
        """Along the text, in pixels."""
        return self.right - self.left

    @property
    def middle(self) -> float:
        """Between top and bottom."""
        return (self.top + self.bottom) / 2


def bands_of(boxes: Iterable[Box]) -> list[list[Box]]:
    """Groups of boxes between which a level line can be drawn across the page."""
    bands: list[list[Box]] = []
    bottom = -np.inf
    for box in sorted(boxes, key=lambda box: box.middle - box.height / 4):
        # Quads are grown beyond the ink: a quarter of their height is air.
        if bands and box.middle - box.height / 4 < bottom:
            bands[-1].append(box)
        else:
            bands.append([box])
        bottom = max(bottom, box.middle + box.height / 4)
    return bands


def rows_of(boxes: Iterable[Box]) -> list[list[Box]]:
    """Boxes at one height, each row from left to right, rows from top to bottom."""
    rows: list[list[Box]] = []
    alone: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: box.middle):
        if _is_upright(box):
            alone.append([box])
        elif row := next((row for row in reversed(rows) if _share_row(row, box)), None):
            row.append(box)
        else:
            rows.append([box])
    for row in rows:
        row.sort(key=lambda box: box.left)
    return sorted((*rows, *alone), key=lambda row: fmean(box.middle for box in row))


def _share_row(row: Sequence[Box], box: Box) -> bool:
    nearest = min(row, key=lambda other: max(other.left - box.right, box.left - other.right))
    overlap = min(nearest.right, box.right) - max(nearest.left, box.left)
    # Two boxes one above the other are two rows, however close.
    if overlap > 0.3 * min(nearest.width, box.width):
        return False
    return is_level(nearest, box)


def is_level(first: Box, second: Box) -> bool:
    """Whether two boxes stand at one height."""
    return abs(first.middle - second.middle) < 0.35 * min(first.height, second.height)


def _is_upright(box: Box) -> bool:
    return box.height >= _UPRIGHT_RATIO * box.width and len("".join(word.text for word in box.fragment.words)) > 1


def words_of(row: Sequence[Box]) -> tuple[Word, ...]:
    """Those of a row, from left to right."""
    return tuple(word for box in row for word in box.fragment.words)
