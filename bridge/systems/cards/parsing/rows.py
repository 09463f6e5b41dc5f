"""Rows of a page as an eye sees them: what stands at one height, from left to right, whatever the order in which it was read.

Labels and values of a card stand in columns, which an engine may read one after the other.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, pairwise
from math import hypot

from bridge.inference.documents import Word
from bridge.systems.cards.parsing.lines import Polygon, ReadLine

# Where words are parted by so many heights, something else begins: another column, or what is printed under the photograph.
GAP_HEIGHTS = 1.5
# How far the middles of two lines of one row may be apart, and how far they may overlap along it, in heights of the lower one.
_MOST_SHIFT = 0.5
_MOST_OVERLAP = 0.5
# A line of so many heights tells half of its slope by itself: corners are off by a pixel or two.
_SUPPORT_HEIGHTS = 4.0
# So many spaces part columns in a text without places.
_WIDE_SPACE = re.compile(r"\t\s*| {4,}")
_TITLE = re.compile(r"\b\w{1,2}\.\w{1,3}$")
# The last letter of a label that touches its value, before a value in capitals.
_REST_OF_LABEL = re.compile(r"[a-z]\s+(?=[A-Z]{2})")
# Around a value.
_AROUND = " \t:;=|~_-.,*'\"<>»«+"


@dataclass(frozen=True, kw_only=True)
class Box:
    """Bounds in pixels along the text and across it, whichever way the page lies."""

    left: float
    right: float
    top: float
    bottom: float

    @property
    def height(self) -> float:
        """Of the text."""
        return self.bottom - self.top

    @property
    def center(self) -> float:
        """Along the text."""
        return (self.left + self.right) / 2

    @property
    def middle(self) -> float:
        """Across the text."""
        return (self.top + self.bottom) / 2


@dataclass(frozen=True, kw_only=True)
class Row:
    """What stands at one height."""

    text: str
    # From 1.
    page: int = 1
    # Joined by single spaces they are the text, and their boxes; none where the engine tells no places.
    words: tuple[Word, ...] = ()
    boxes: tuple[Box, ...] = ()
    # Where in the text something else begins, beyond a wide gap.
    breaks: tuple[int, ...] = ()

    def end_of_piece(self, place: int) -> int:
        """Where the next wide gap behind a place is, or the end."""
        following = bisect_right(self.breaks, place)
        return self.breaks[following] if following < len(self.breaks) else len(self.text)

    def touched(self, start: int, end: int) -> tuple[tuple[Word, Box], ...]:
        """The words that a part of the text touches."""
        found, place = [], 0
        for word, box in zip(self.words, self.boxes, strict=True):
            if place < end and place + len(word.text) > start:
                found.append((word, box))
            place += len(word.text) + 1
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A part of a row."""

    row: Row
    start: int
    end: int

    @property
    def text(self) -> str:
        """What it says."""
        return self.row.text[self.start : self.end]

    @property
    def box(self) -> Box | None:
        """The bounds of its words; None where the engine tells no places."""
        boxes = [box for _, box in self.row.touched(self.start, self.end)]
        return _around(boxes) if boxes else None

    def part(self, start: int, end: int) -> Passage:
        """A part of it, by places in its text."""
        return Passage(row=self.row, start=self.start + start, end=self.start + end)

    def trimmed(self) -> Passage:
        """Without marks and spaces around."""
        start = len(self.text) - len(self.text.lstrip(_AROUND))
        if rest := _REST_OF_LABEL.match(self.text, start):
            start = rest.end()
        end = max(start, len(self.text.rstrip(_AROUND)))
        # The last stop of `S.H.` is of the title.
        return self.part(start, end + (self.text[end : end + 1] == "." and bool(_TITLE.search(self.text, start, end))))

    def pieces(self) -> tuple[Passage, ...]:
        """Those that wide gaps leave of it, without marks around."""
        first, last = bisect_right(self.row.breaks, self.start), bisect_left(self.row.breaks, self.end)
        cuts = [self.start, *self.row.breaks[first:last], self.end]
        pieces = (Passage(row=self.row, start=start, end=end).trimmed() for start, end in pairwise(cuts))
        return tuple(piece for piece in pieces if piece.text)


def rows_of(lines: Iterable[ReadLine]) -> list[Row]:
    """Put lines into rows, page by page. Lines of a page without places stay as they are."""
    rows: list[Row] = []
    for page, read in groupby(lines, key=lambda line: line.page):
        on_page = [line for line in read if line.text.strip()]
        if on_page and all(line.words for line in on_page):
            rows += _rows_on(page, on_page)
        else:
            rows += [_row_without_places(line) for line in on_page]
    return rows


def place_of(passages: Sequence[Passage]) -> tuple[float | None, Polygon]:
    """The confidence, by the length of the words, and the polygon of all words that passages touch."""
    words = [word for passage in passages for word, _ in passage.row.touched(passage.start, passage.end)]
    if not words:
        return None, ()
    confidence = sum(word.confidence * len(word.text) for word in words) / sum(len(word.text) for word in words)
    first, last = words[0].polygon, words[-1].polygon
    polygon = (first[0], last[1], last[2], first[3]) if len(passages) == 1 else _corners(words)
    return round(confidence, 4), polygon


def _row_without_places(line: ReadLine) -> Row:
    return Row(text=line.text, page=line.page, breaks=tuple(gap.end() for gap in _WIDE_SPACE.finditer(line.text)))


def _rows_on(page: int, lines: Sequence[ReadLine]) -> list[Row]:
    along = _direction(word for line in lines for word in line.words)
    boxes = [[_box(word.polygon, along) for word in line.words] for line in lines]
    rows: list[list[int]] = [[number] for number in range(len(lines))]
    tilts = [_tilt([word.polygon for word in line.words], along) for line in lines]
    for _, one, other in sorted(_neighbours(boxes, tilts)):
        left, right = (next(row for row in rows if number in row) for number in (one, other))
        if left is not right and all(_beside(boxes[a], boxes[b]) for a in left for b in right):
            left += right
            rows.remove(right)
    for row in rows:
        row.sort(key=lambda number: boxes[number][0].left)
    rows.sort(key=lambda row: boxes[row[0]][0].middle)
    return [_row(page, [lines[number] for number in row], [box for number in row for box in boxes[number]]) for row in rows]


def _row(page: int, lines: Sequence[ReadLine], boxes: Sequence[Box]) -> Row:
    words = tuple(word for line in lines for word in line.words)
    breaks, place = [], 0
    for word, (box, following) in zip(words, pairwise(boxes), strict=False):
        place += len(word.text) + 1
        if following.left - box.right > GAP_HEIGHTS * (box.height + following.height) / 2:
            breaks.append(place)
    return Row(text=" ".join(word.text for word in words), page=page, words=words, boxes=tuple(boxes), breaks=tuple(breaks))


def _direction(words: Iterable[Word]) -> tuple[float, float]:
    """In which the text of a page runs, as a vector of length 1; long words tell it best."""
    edges = [(word.polygon[1][0] - word.polygon[0][0], word.polygon[1][1] - word.polygon[0][1]) for word in words]
    x, y = sum(edge[0] for edge in edges), sum(edge[1] for edge in edges)
    length = hypot(x, y)
    return (x / length, y / length) if length else (1.0, 0.0)


def _box(polygon: Polygon, along: tuple[float, float]) -> Box:
    x = [along[0] * corner[0] + along[1] * corner[1] for corner in polygon]
    y = [along[0] * corner[1] - along[1] * corner[0] for corner in polygon]
    return Box(left=(x[0] + x[3]) / 2, right=(x[1] + x[2]) / 2, top=(y[0] + y[1]) / 2, bottom=(y[2] + y[3]) / 2)


def _tilt(polygons: Sequence[Polygon], along: tuple[float, float]) -> tuple[float, float]:
    """How far a line comes along the text, and across it: a photograph from one side has rows that are not parallel."""
    first, last = polygons[0], polygons[-1]
    x, y = (sum(last[corner][axis] - first[3 - corner][axis] for corner in (1, 2)) / 2 for axis in (0, 1))
    return along[0] * x + along[1] * y, along[0] * y - along[1] * x


def _neighbours(boxes: Sequence[Sequence[Box]], tilts: Sequence[tuple[float, float]]) -> Iterable[tuple[float, int, int]]:
    """Lines that may be of one row, with how far they are apart in height, going on as both of them do."""
    for one, other in combinations(range(len(boxes)), 2):
        left, right = sorted((one, other), key=lambda number: boxes[number][0].left)
        end, start = boxes[left][-1], boxes[right][0]
        height = min(end.height, start.height)
        # Each goes on as it comes, to halfway between the two: so do the ends of an arch.
        halfway = (end.center + start.center) / 2
        onwards = _slope(tilts[left], tilts[right], height) * (halfway - end.center)
        backwards = _slope(tilts[right], tilts[left], height) * (halfway - start.center)
        shift = abs(start.middle + backwards - end.middle - onwards)
        if height > 0 and shift < _MOST_SHIFT * height and _beside(boxes[left], boxes[right]):
            yield shift / height, left, right


def _slope(own: tuple[float, float], other: tuple[float, float], height: float) -> float:
    """Of a line: its own, but the shorter it is, the more that of both."""
    length = own[0] + other[0]
    both = (own[1] + other[1]) / length if length > 0 else 0.0
    support = _SUPPORT_HEIGHTS * height
    return (own[1] + support * both) / max(own[0] + support, 1.0)


def _beside(one: Sequence[Box], other: Sequence[Box]) -> bool:
    overlap = min(one[-1].right, other[-1].right) - max(one[0].left, other[0].left)
    return overlap < _MOST_OVERLAP * min(one[0].height, other[0].height)


def _around(boxes: Sequence[Box]) -> Box:
    return Box(
        left=min(box.left for box in boxes),
        right=max(box.right for box in boxes),
        top=min(box.top for box in boxes),
        bottom=max(box.bottom for box in boxes),
    )


def _corners(words: Sequence[Word]) -> Polygon:
    """The corners of what encloses words of several rows."""
    along = _direction(words)
    bounds = _around([_box(word.polygon, along) for word in words])
    sides = ((bounds.left, bounds.top), (bounds.right, bounds.top), (bounds.right, bounds.bottom), (bounds.left, bounds.bottom))
    return tuple((round(x * along[0] - y * along[1], 2), round(x * along[1] + y * along[0], 2)) for x, y in sides)
