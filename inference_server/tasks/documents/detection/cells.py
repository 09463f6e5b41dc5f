"""Rows of printed cells, one letter each, as forms have them, and the page without their rules and letters."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.images.spots import darker_of, strokes_of
from inference_server.tasks.documents.values import Page, Quad

# What lies so near to a rule, in shares of a cell's height, belongs to it.
MARGIN = 0.14
# So much of a cell's height is its upper and its lower border, and lies in no line that is read.
_BORDER = 0.06
# Rules are strokes of at least this share of a cell's height, or width.
_STROKE = 0.7


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An upright one, in pixels of the page."""

    left: int
    right: int
    top: int
    bottom: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        """Its x."""
        return (self.left + self.right) / 2

    def scaled(self, factor: int) -> Rule:
        """The one of a page so many times as large, with what it may touch there."""
        if factor == 1:
            return self
        left, top = (max(int((side - 0.5) * factor), 0) for side in (self.left, self.top))
        right, bottom = (math.ceil((side + 0.5) * factor) for side in (self.right, self.bottom))
        return Rule(left=left, right=right, top=top, bottom=bottom)


@dataclass(frozen=True, kw_only=True)
class CellRow:
    """Cells side by side, from left to right."""

    # One more than there are cells.
    rules: tuple[Rule, ...]
    # Which cells hold something.
    filled: tuple[bool, ...]

    @property
    def height(self) -> int:
        """Of a rule, in pixels."""
        return self.rules[0].height

    def outlines(self) -> list[Quad]:
        """Of each run of cells that hold something, without its rules."""
        margin = max(int(self.height * _BORDER), 1)
        found: list[Quad] = []
        for holds, cells in itertools.groupby(range(len(self.filled)), key=self.filled.__getitem__):
            if holds:
                start, *others = cells
                first, last = self.rules[start], self.rules[start + len(others) + 1]
                corners = [
                    (first.right, first.top + margin),
                    (last.left, last.top + margin),
                    (last.left, last.bottom - margin),
                    (first.right, first.bottom - margin),
                ]
                found.append(np.array(corners, np.float32))
        return found

    def cell_at(self, x: float, y: float) -> int | None:
        """The cell in which a point of the page lies."""
        index = bisect_left(self.rules, x, key=lambda rule: rule.middle) - 1
        if not 0 <= index < len(self.rules) - 1:
            return None
        rule = self.rules[index]
        return index if rule.top <= y <= rule.bottom else None


def without_rules(page: Page, rows: Sequence[CellRow]) -> Page:
    """The page, of the paper's colour where it has rules around cells."""
    cleaned = page.copy()
    for row in rows:
        place = _place_of(row)
        cleaned[place][_lines_of(page, row, place)] = _paper_of(page, place)
    return cleaned


def without_letters(page: Page, rows: Sequence[CellRow]) -> Page:
    """The page, of the paper's colour where its cells hold something."""
    blank = page.copy()
    for row in rows:
        paper = _paper_of(page, _place_of(row)).tolist()
        for outline in row.outlines():
            cv2.fillPoly(blank, [outline.astype(np.int32)], paper)
    return blank


def _paper_of(page: Page, place: tuple[slice, slice]) -> NDArray[np.uint8]:
    return np.asarray(np.median(page[place].reshape(-1, 3), axis=0), np.uint8)


def _place_of(row: CellRow) -> tuple[slice, slice]:
    """The part of the page in which a row lies, with its borders."""
    first, last = row.rules[0], row.rules[-1]
    top, bottom = min(rule.top for rule in row.rules), max(rule.bottom for rule in row.rules)
    reach = max(int(row.height * MARGIN), 2)
    return np.s_[max(top - reach, 0) : bottom + reach, max(first.left - reach, 0) : last.right + reach]


def _lines_of(page: Page, row: CellRow, place: tuple[slice, slice]) -> NDArray[np.bool_]:
    """Where a part of the page shows rules of cells, upright and level, with what blurs at their sides."""
    marked = darker_of(np.asarray(cv2.cvtColor(page[place], cv2.COLOR_RGB2GRAY), np.uint8))
    upright = strokes_of(marked, (int(row.height * _STROKE), 1), (1, 3))
    width = row.rules[1].middle - row.rules[0].middle
    level = strokes_of(marked, (1, max(int(width * _STROKE), 3)), (3, 1))
    beside = np.zeros_like(marked)
    for rule in row.rules:
        beside[:, max(rule.left - place[1].start - 1, 0) : rule.right - place[1].start + 1] = 1
    return np.asarray(cv2.dilate(level | (upright & beside), np.ones((3, 3), np.uint8)), np.bool_)
