"""Where a page has rows of cells: upright rules at one distance between two borders, and between them nothing or one letter."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.detection.cells import MARGIN, CellRow, Rule
from inference_server.tasks.documents.images.spots import bounds_of, darker_of, strokes_of
from inference_server.tasks.documents.values import Page

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
# A column or a row of a cell with so many marked pixels holds none of a letter.
_SPECK = 1
# A dot is so high at most, as a share of the letter with it.
_MOST_DOT = 0.35
# More upright strokes than any form has rules.
_MOST_RULES = 3_000


def cell_rows_of(page: Page) -> tuple[CellRow, ...]:
    """The rows of cells of an upright page whose cells hold one letter each."""
    scale = max(1, round(min(page.shape[:2]) / _SOUGHT_SIDE))
    gray = np.asarray(cv2.cvtColor(page, cv2.COLOR_RGB2GRAY), np.uint8)
    if scale > 1:
        gray = np.asarray(cv2.resize(gray, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA), np.uint8)
    marked = darker_of(gray)
    found = _rows(marked, _rules(marked))
    return tuple(replace(row, rules=tuple(rule.scaled(scale) for rule in row.rules)) for row in found)


def _rules(marked: NDArray[np.uint8]) -> list[Rule]:
    """Upright strokes, of whatever, that end on a level one."""
    spots = bounds_of(strokes_of(marked, (_HEIGHTS[0], 1), (1, 3)))
    left, top, width, height = spots.T
    chosen = (height <= _HEIGHTS[1]) & (width <= np.maximum(height * _RULE_WIDTH, _LEAST_WIDTH))
    # Most strokes are of letters, which no level one begins beside.
    level = cv2.morphologyEx(marked, cv2.MORPH_OPEN, np.ones((1, int(_HEIGHTS[0] * _WIDTHS[0])), np.uint8))
    near = np.pad(cv2.dilate(np.asarray(level, np.uint8), np.ones((7, 7), np.uint8)), ((0, 1), (0, 1)))
    chosen &= (near[top + height, left - 1] | near[top + height, left + width]) > 0
    if np.count_nonzero(chosen) > _MOST_RULES:
        return []
    rules = [Rule(left=x + 1, right=x + wide - 1, top=y, bottom=y + high) for x, y, wide, high in spots[chosen].tolist()]
    return sorted((rule for rule in rules if _ends_on_border(marked, rule)), key=lambda rule: (rule.left, rule.top))


def _ends_on_border(marked: NDArray[np.uint8], rule: Rule) -> bool:
    reach, length = max(int(rule.height * MARGIN), 2), int(rule.height * _WIDTHS[0])
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
        margin = max(int(before.height * MARGIN), 2)
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
