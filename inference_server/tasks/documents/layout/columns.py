"""Columns of running text and of lists, told from forms whose labels and values stand in two columns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median

from inference_server.tasks.documents.layout.key_fields import tells_pair
from inference_server.tasks.documents.layout.rows import GUTTER_HEIGHTS, Box, is_level, rows_of, words_of

# Columns of running text: this many lines at least, most of them this full, and so wide in text heights. Cells of a table are none of it.
_COLUMN_LINES = 3
_COLUMN_FULL = 0.7
_COLUMN_HEIGHTS = 8.0
# Rows on both sides of a gutter belong together where so many of them stand at one height, and tell pairs of labels and values: by their
# colons, or so many by a gap that parts a label from its value. Narrower fragments before a gap are bullets and numbers of lists.
_ALIGNED = 0.7
_PARTED = 0.6
# Running text may have colons too, but fills its column; pairs end where they end. So many colons tell pairs: in rows that end before so
# much of their column, or in rows of any length, unless nearly all on both sides end behind so much of it.
_LABELLED = 0.4
_SHORT = 0.85
_ALL_LABELLED = 0.8
_FULL = 0.95
_ALL_FULL = 0.9
_BULLET_HEIGHTS = 3.0
# A list that goes on in the next column: so many entries on each side, of which one in so many may be out of order, as where it is misread.
_LIST_ENTRIES = 5
_IN_ORDER = 6
# So many of its first words differ.
_DIFFERENT = 0.7
# Further rows begin more than so many text heights behind the column's left edge.
_INDENT_HEIGHTS = 0.5
# A heading or a foot of two columns that is no wider than one of them has so many rows. The rows around a heading that columns stand above
# are so many usual distances of rows apart, a heading at the top of them so many from the row under it, a foot from the row over it.
_APART_ROWS = (1, 2)
_FREE_ROWS, _UNDER_ROWS, _FOOT_ROWS = 2.5, 1.5, 2.5
_NUMBERED = re.compile(r"(\d{1,4})[.):]?")


def are_columns(lefts: Sequence[Sequence[Box]], rights: Sequence[Sequence[Box]], height: float) -> bool:
    """Whether the rows of both are running text, or a list goes on from one to the other.

    As full as running text are forms whose pairs of labels and values stand in two columns.
    """
    if _is_list(_entries(lefts, height), _entries(rights, height)):
        return True
    if not _is_running_text(lefts, height) or not _is_running_text(rights, height):
        return False
    if not _are_aligned(lefts, rights):
        return True
    parted_by_colon = (
        _are_labelled(lefts, lambda row: words_of(row)[-1].text.endswith(":"))
        or _share(rights, lambda row: words_of(row)[0].text.startswith(":")) >= _LABELLED
    )
    are_uneven = any(len(_ending_before(_FULL, rows)) > (1 - _ALL_FULL) * len(rows) for rows in (lefts, rights))
    return not parted_by_colon and not all(_tells_pairs(rows, height, are_uneven) for rows in (lefts, rights))


def lines_apart(lefts: Sequence[Sequence[Box]], rights: Sequence[Sequence[Box]], height: float) -> list[Box]:
    """A heading or a foot that is no wider than one of two columns, yet belongs to both; nothing where there is none."""
    for rows, others in ((lefts, rights), (rights, lefts)):
        other = [box for row in others for box in row]
        # From each row to the next; above the first and below the last there is nothing.
        gaps = [b[0].middle - a[0].middle for a, b in pairwise(rows)]
        usual = max(height, median(gaps or [0.0]))
        gaps = [math.inf, *gaps, math.inf]
        for count in _APART_ROWS:
            for start, (over, under) in enumerate(zip(gaps, gaps[count:], strict=False)):
                if not _are_free(over / usual, under / usual):
                    continue
                lines = [box for row in rows[start : start + count] for box in row]
                after = rows[start + count] if start + count < len(rows) else None
                if _begins_below(lines, over, after[0], other, usual) if after else _ends_above(lines, other, usual):
                    return lines
    return []


def _are_free(over: float, under: float) -> bool:
    """Whether lines that are so many rows below the row before them and above the one after them may belong to more than their column."""
    if under == math.inf:
        return _FOOT_ROWS <= over < math.inf
    return min(over, under) > 1 and over + under >= _FREE_ROWS if over < math.inf else under >= _UNDER_ROWS


def _begins_below(lines: Sequence[Box], over: float, after: Box, other: Sequence[Box], usual: float) -> bool:
    """Whether the other column is free all along a heading, from the row before it, and begins beside the row after it."""
    if not any(is_level(box, after) for box in other):
        return False
    above = [box.middle for box in other if box.middle < after.middle and not is_level(box, after)]
    if over == math.inf:
        return not above
    return bool(above) and max(above) <= lines[0].middle - over + usual / 2


def _ends_above(lines: Sequence[Box], other: Sequence[Box], usual: float) -> bool:
    """Whether the other column has ended above a foot."""
    return lines[0].middle - max(box.middle for box in other) >= usual


def _entries(rows: Sequence[Sequence[Box]], height: float) -> list[str]:
    """The first words of the rows that begin at the left edge."""
    edge = min(row[0].left for row in rows)
    return [words_of(row)[0].text.casefold() for row in rows if row[0].left <= edge + _INDENT_HEIGHTS * height]


def _is_list(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether entries are numbered or in the order of the alphabet down the first column and on down the second, as in a glossary."""
    return min(len(first), len(second)) >= _LIST_ENTRIES and (_are_numbered(first, second) or _are_alphabetical(first, second))


def _are_numbered(first: Sequence[str], second: Sequence[str]) -> bool:
    numbers = [int(match.group(1)) for match in map(_NUMBERED.fullmatch, (*first, *second)) if match]
    if len(numbers) < len(first) + len(second):
        return False
    return numbers[len(first)] == numbers[len(first) - 1] + 1 and _mostly([after == before + 1 for before, after in pairwise(numbers)])


def _are_alphabetical(first: Sequence[str], second: Sequence[str]) -> bool:
    words, others = (["".join(filter(str.isalpha, entry)) for entry in entries] for entries in (first, second))
    # Without letters there is no such order, and words that are all the same are in any.
    if not all((*words, *others)) or len({*words, *others}) < _DIFFERENT * len((*words, *others)):
        return False
    # One that is misread, or printed out of order, may stand at the columns' ends too.
    goes_on = max(words[-2:]) <= min(others[:2])
    return goes_on and all(_mostly([before <= after for before, after in pairwise(side)]) for side in (words, others))


def _mostly(are_so: Sequence[bool]) -> bool:
    return are_so.count(False) <= (len(are_so) + 1) // _IN_ORDER


def _is_running_text(rows: Sequence[Sequence[Box]], height: float) -> bool:
    boxes = [box for row in rows for box in row]
    width = max(box.right for box in boxes) - min(box.left for box in boxes)
    # The cells of a table leave most of a row free, wherever they stand in it.
    full = _share(rows, lambda row: sum(box.width for box in row) >= _COLUMN_FULL * width)
    return len(rows) >= _COLUMN_LINES and width >= _COLUMN_HEIGHTS * height and full >= 0.5


def _are_aligned(lefts: Sequence[Sequence[Box]], rights: Sequence[Sequence[Box]]) -> bool:
    """Whether most rows of the side that has fewer stand at the height of one on the other side."""
    fewer, more = sorted((lefts, rights), key=len)
    return _share(fewer, lambda row: any(is_level(row[0], other[0]) for other in more)) >= _ALIGNED


def _tells_pairs(rows: Sequence[Sequence[Box]], height: float, are_uneven: bool) -> bool:
    """Whether rows are labels and values: by their colons, or as two columns of which the first is no running text."""
    if _are_labelled(rows, lambda row: tells_pair(words_of(row)), are_uneven):
        return True
    parted = [row for row in rows if any(b.left - a.right >= GUTTER_HEIGHTS * height for a, b in pairwise(row))]
    firsts = [row[0] for row in parted]
    is_parted = len(parted) >= _PARTED * len(rows) and max(box.width for box in firsts) >= _BULLET_HEIGHTS * height
    return is_parted and not _is_running_text(rows_of(firsts), height)


def _are_labelled(rows: Sequence[Sequence[Box]], is_labelled: Callable[[Sequence[Box]], bool], may_be_full: bool = True) -> bool:
    """Whether many rows that end early have a colon, or, where rows may be full, nearly all do."""
    early = sum(map(is_labelled, _ending_before(_SHORT, rows)))
    return early >= _LABELLED * len(rows) or (may_be_full and _share(rows, is_labelled) >= _ALL_LABELLED)


def _ending_before(share: float, rows: Sequence[Sequence[Box]]) -> list[Sequence[Box]]:
    """The rows that end before so much of their column's width."""
    left, right = min(row[0].left for row in rows), max(row[-1].right for row in rows)
    return [row for row in rows if row[-1].right < left + share * (right - left)]


def _share(rows: Sequence[Sequence[Box]], is_so: Callable[[Sequence[Box]], bool]) -> float:
    return sum(map(is_so, rows)) / len(rows)
