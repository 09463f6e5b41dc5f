"""Rows of printed cells, one letter each, as forms have them: what they hold is read without their rules, and joined to words."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.spots import spots_of
from inference_server.tasks.documents.values import Page, Quad

# Rows are sought on a page whose shorter side is scaled down by a whole number to about this: A4 at 120 dpi.
_SOUGHT_SIDE = 1_000
# Rules between cells are so high, in pixels there, and at most this share of their height wide, or so many pixels.
_HEIGHTS = (12, 120)
_RULE_WIDTH, _LEAST_WIDTH = 0.2, 4
# A cell's width, in heights; where two rules stand closer, each cell has its own.
_WIDTHS = (0.4, 1.4)
_SAME_BORDER = 0.3
# Neighbours differ by at most this share of a height from top to top and from bottom to bottom, and of a width in their widths.
_ALIKE = 0.12
_LEAST_CELLS = 4
# The borders of a cell are there along this share of it; so many cells of a row have them, and hold nothing that touches a rule.
_LEAST_BORDER, _LEAST_SOUND = 0.9, 0.7
# So many cells hold something, and at most this share of those more than one letter.
_LEAST_FILLED, _MOST_CROWDED = 3, 0.34
# What lies so near to a rule, in shares of a cell's height, belongs to it.
_MARGIN = 0.14
# Ink is so much darker than the mean of so many pixels around it each way.
_AROUND, _DARKER = 25, 30
# A column or a row of a cell with so many marked pixels holds none of a letter.
_SPECK = 1
# A dot is so high at most, as a share of the letter with it.
_MOST_DOT = 0.35
# Rules are strokes of at least this share of a cell's height, or width.
_STROKE = 0.7
# So much of a cell's height is its upper and its lower border, and lies in no line that is read.
_BORDER = 0.06
# More upright strokes than any form has rules.
_MOST_RULES = 3_000


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
        first, last = (
            [(each - 0.5) * factor for each in (self.left, self.top)],
            [(each + 0.5) * factor for each in (self.right, self.bottom)],
        )
        return Rule(left=max(int(first[0]), 0), top=max(int(first[1]), 0), right=math.ceil(last[0]), bottom=math.ceil(last[1]))


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
        found: list[Quad] = []
        start = None
        for index, holds in enumerate([*self.filled, False]):
            if holds and start is None:
                start = index
            elif not holds and start is not None:
                first, last = self.rules[start], self.rules[index]
                margin = max(int(self.height * _BORDER), 1)
                corners = [
                    (first.right, first.top + margin),
                    (last.left, last.top + margin),
                    (last.left, last.bottom - margin),
                    (first.right, first.bottom - margin),
                ]
                found.append(np.array(corners, np.float32))
                start = None
        return found

    def cell_at(self, x: float, y: float) -> int | None:
        """The cell in which a point of the page lies."""
        index = bisect_left([rule.middle for rule in self.rules], x) - 1
        if not 0 <= index < len(self.rules) - 1:
            return None
        rule = self.rules[index]
        return index if rule.top <= y <= rule.bottom else None


def cell_rows_of(page: Page) -> tuple[CellRow, ...]:
    """The rows of cells of an upright page whose cells hold one letter each."""
    scale = max(1, round(min(page.shape[:2]) / _SOUGHT_SIDE))
    gray = np.asarray(cv2.cvtColor(page, cv2.COLOR_RGB2GRAY), np.uint8)
    if scale > 1:
        gray = np.asarray(cv2.resize(gray, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA), np.uint8)
    marked = _marked_of(gray)
    found = _rows(marked, _rules(marked))
    return tuple(replace(row, rules=tuple(rule.scaled(scale) for rule in row.rules)) for row in found)


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


def _marked_of(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where a grey page [H, W] is darker than what lies around, faint rules included."""
    return np.asarray(cv2.adaptiveThreshold(gray, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, _AROUND, _DARKER), np.uint8)


def _rules(marked: NDArray[np.uint8]) -> list[Rule]:
    """Upright strokes, of whatever, that end on a level one."""
    spots = spots_of(_strokes(marked, (_HEIGHTS[0], 1), (1, 3)))
    left, top, width, height, _ = spots.T
    chosen = (height <= _HEIGHTS[1]) & (width <= np.maximum(height * _RULE_WIDTH, _LEAST_WIDTH))
    # Most strokes are of letters, which no level one begins beside.
    level = cv2.morphologyEx(marked, cv2.MORPH_OPEN, np.ones((1, int(_HEIGHTS[0] * _WIDTHS[0])), np.uint8))
    near = np.pad(cv2.dilate(np.asarray(level, np.uint8), np.ones((7, 7), np.uint8)), ((0, 1), (0, 1)))
    chosen &= (near[top + height, left - 1] | near[top + height, left + width]) > 0
    if np.count_nonzero(chosen) > _MOST_RULES:
        return []
    rules = [Rule(left=x + 1, right=x + wide - 1, top=y, bottom=y + high) for x, y, wide, high in spots[chosen, :4].tolist()]
    return sorted((rule for rule in rules if _ends_on_border(marked, rule)), key=lambda rule: rule.left)


def _ends_on_border(marked: NDArray[np.uint8], rule: Rule) -> bool:
    reach, length = max(int(rule.height * _MARGIN), 2), int(rule.height * _WIDTHS[0])
    rows = marked[max(rule.bottom - reach, 0) : rule.bottom + reach]
    sides = rows[:, rule.right : rule.right + length], rows[:, max(rule.left - length, 0) : rule.left]
    return any(side.shape[1] == length and bool(side.any(axis=0).mean() >= _LEAST_BORDER) for side in sides)


def _rows(marked: NDArray[np.uint8], rules: Sequence[Rule]) -> list[CellRow]:
    rows: list[CellRow] = []
    free = [True] * len(rules)
    lefts = [rule.left for rule in rules]
    for start in range(len(rules)):
        if not free[start]:
            continue
        chain, places = _chain(rules, lefts, free, start)
        if len(chain) > _LEAST_CELLS and (row := _row_of(marked, chain)):
            rows.append(row)
            # The last one may begin another row.
            for place in places[:-1]:
                free[place] = False
    return rows


def _chain(rules: Sequence[Rule], lefts: Sequence[int], free: Sequence[bool], start: int) -> tuple[list[Rule], list[int]]:
    """Rules at one distance from a first one on, two strokes that stand close as one; and the places of all strokes."""
    chain, places = [rules[start]], [start]
    is_pair = False
    while True:
        last = chain[-1]
        usual = chain[1].middle - chain[0].middle if len(chain) > 1 else None
        for place in range(places[-1] + 1, bisect_left(lefts, last.right + _WIDTHS[1] * last.height + 1)):
            rule = rules[place]
            if not (free[place] and _is_level(last, rule)):
                continue
            if rule.left - last.right <= _SAME_BORDER * last.height:
                if is_pair:
                    continue
                chain[-1] = replace(last, right=rule.right)
                is_pair = True
                break
            if _follows(last, rule, usual):
                chain.append(rule)
                is_pair = False
                break
        else:
            return chain, places
        places.append(place)


def _is_level(last: Rule, rule: Rule) -> bool:
    slack = max(_ALIKE * last.height, 2)
    return abs(rule.top - last.top) <= slack and abs(rule.bottom - last.bottom) <= slack


def _follows(last: Rule, rule: Rule, usual: float | None) -> bool:
    """Whether a cell of the `usual` width, where one is known, lies between two rules."""
    apart = rule.middle - last.middle
    return apart >= _WIDTHS[0] * last.height and (usual is None or abs(apart - usual) <= max(_ALIKE * usual, 2))


def _row_of(marked: NDArray[np.uint8], rules: Sequence[Rule]) -> CellRow | None:
    """Cells between rules; None where they have no border, where their letters touch the rules, or where many hold several."""
    cells = [_Cell.of(marked, before, after) for before, after in itertools.pairwise(rules)]
    filled = [cell for cell in cells if cell.letters]
    sound = min(np.mean([cell.is_closed for cell in cells]), np.mean([cell.is_free for cell in cells]))
    crowded = sum(cell.letters > 1 for cell in filled)
    if sound < _LEAST_SOUND or len(filled) < _LEAST_FILLED or crowded > _MOST_CROWDED * len(filled):
        return None
    return CellRow(rules=tuple(rules), filled=tuple(cell.letters > 0 for cell in cells))


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """What a cell holds."""

    # Beside or above each other.
    letters: int
    # Whether it has a border above and below.
    is_closed: bool
    # Whether nothing in it touches its sides.
    is_free: bool

    @staticmethod
    def of(marked: NDArray[np.uint8], before: Rule, after: Rule) -> _Cell:
        """The one between two rules."""
        margin = max(int(before.height * _MARGIN), 2)
        borders = [marked[max(y - margin, 0) : y + margin, before.right : after.left] for y in (before.top, before.bottom)]
        inside = marked[before.top + margin : before.bottom - margin, before.right + 1 : after.left - 1]
        columns, rows = inside.sum(axis=0, dtype=np.int32) > _SPECK, inside.sum(axis=1, dtype=np.int32) > _SPECK
        side = margin // 2
        return _Cell(
            letters=max(len(_runs(columns[side : len(columns) - side])), _lines(rows)),
            is_closed=all(border.any(axis=0).mean() >= _LEAST_BORDER for border in borders),
            is_free=not (columns[: side + 1].any() or columns[-side - 1 :].any()),
        )


def _lines(rows: NDArray[np.bool_]) -> int:
    """Letters above each other; a dot above one is no letter."""
    runs = _runs(rows)
    return len(runs) - (len(runs) > 1 and runs[0] <= _MOST_DOT * sum(runs))


def _runs(marked: NDArray[np.bool_]) -> list[int]:
    """How long each run is."""
    steps = np.flatnonzero(np.diff(marked.astype(np.int8), prepend=0, append=0))
    return [int(length) for length in np.diff(steps)[::2]]


def _place_of(row: CellRow) -> tuple[slice, slice]:
    """The part of the page in which a row lies, with its borders."""
    first, last = row.rules[0], row.rules[-1]
    top, bottom = min(rule.top for rule in row.rules), max(rule.bottom for rule in row.rules)
    reach = max(int(row.height * _MARGIN), 2)
    return np.s_[max(top - reach, 0) : bottom + reach, max(first.left - reach, 0) : last.right + reach]


def _lines_of(page: Page, row: CellRow, place: tuple[slice, slice]) -> NDArray[np.bool_]:
    """Where a part of the page shows rules of cells, upright and level, with what blurs at their sides."""
    marked = _marked_of(np.asarray(cv2.cvtColor(page[place], cv2.COLOR_RGB2GRAY), np.uint8))
    upright = _strokes(marked, (int(row.height * _STROKE), 1), (1, 3))
    width = row.rules[1].middle - row.rules[0].middle
    level = _strokes(marked, (1, max(int(width * _STROKE), 3)), (3, 1))
    beside = np.zeros_like(marked)
    for rule in row.rules:
        beside[:, max(rule.left - place[1].start - 1, 0) : rule.right - place[1].start + 1] = 1
    return np.asarray(cv2.dilate(level | (upright & beside), np.ones((3, 3), np.uint8)), np.bool_)


def _strokes(marked: NDArray[np.uint8], length: tuple[int, int], blur: tuple[int, int]) -> NDArray[np.uint8]:
    """Runs of a length and more, also where they are slightly askew."""
    wider = cv2.dilate(marked, np.ones(blur, np.uint8))
    return np.asarray(cv2.morphologyEx(wider, cv2.MORPH_OPEN, np.ones(length, np.uint8)), np.uint8)
