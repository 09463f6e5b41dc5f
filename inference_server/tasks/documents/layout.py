"""Fragments that were read become lines in reading order: across rows, and down columns of running text one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.bend import Slopes, bend_of
from inference_server.tasks.documents.key_fields import tells_pair
from inference_server.tasks.documents.values import Line, Quad, Word

# A gutter between columns is at least this wide, in usual text heights.
_GUTTER_HEIGHTS = 0.8
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
# A fragment that is this much higher than wide runs upwards and belongs to no row.
_UPRIGHT_RATIO = 1.5
# The slope of a fragment that is so many heights long tells how a page is bent.
_TELLING_HEIGHTS = 2.5
# Below this a page counts as straight, in radians.
_STRAIGHT = 0.001


# From one x to another.
_Span = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """What was read in one quad of the detector."""

    quad: Quad
    words: tuple[Word, ...]


@dataclass(frozen=True, kw_only=True)
class _Box:
    """A fragment's bounds once the page is turned straight."""

    left: float
    right: float
    top: float
    bottom: float
    fragment: Fragment

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


def reading_order(fragments: Sequence[Fragment]) -> tuple[Line, ...]:
    """Put fragments in order and join those of one row to lines."""
    if not fragments:
        return ()
    angle = _page_angle(fragments)
    boxes = [_straight_box(fragment, angle) for fragment in fragments]
    height = float(np.median([min(box.height, box.width) for box in boxes]))
    return tuple(_line(row, angle) for row in _rows_in_order(_level_boxes(boxes, angle, height), height))


def _page_angle(fragments: Sequence[Fragment]) -> float:
    """The slope that most of the text has, in radians; long fragments tell it best."""
    edges = np.array([(quad[1] + quad[2] - quad[0] - quad[3]) / 2 for quad in (fragment.quad for fragment in fragments)])
    lengths = np.hypot(edges[:, 0], edges[:, 1])
    angles = np.arctan2(edges[:, 1], edges[:, 0])
    flat = np.abs(angles) < np.pi / 6
    if not flat.any():
        return 0.0
    angles, lengths = angles[flat], lengths[flat]
    order = np.argsort(angles)
    angle = float(angles[order][np.searchsorted(np.cumsum(lengths[order]), lengths.sum() / 2)])
    return 0.0 if abs(angle) < _STRAIGHT else angle


def _straight_box(fragment: Fragment, angle: float) -> _Box:
    points = _turned(fragment.quad, -angle)
    # Halfway between the bounds of the corners and the quad's own sides, a tilted quad does not swell.
    left, right = float(points[[0, 3], 0].mean()), float(points[[1, 2], 0].mean())
    top, bottom = float(points[[0, 1], 1].mean()), float(points[[2, 3], 1].mean())
    return _Box(left=left, right=max(right, left + 1), top=top, bottom=max(bottom, top + 1), fragment=fragment)


def _level_boxes(boxes: Sequence[_Box], angle: float, height: float) -> Sequence[_Box]:
    """The boxes where they would lie if the page were flat."""
    edges = np.array([_turned(box.fragment.quad, -angle) for box in boxes])
    along = (edges[:, 1] + edges[:, 2] - edges[:, 0] - edges[:, 3]) / 2
    x, y = np.array([((box.left + box.right) / 2, box.middle) for box in boxes]).T
    tells = (along[:, 0] >= _TELLING_HEIGHTS * height) & (np.abs(along[:, 1]) < np.tan(np.pi / 6) * along[:, 0])
    slopes = along[tells, 1] / along[tells, 0]
    bend = bend_of(Slopes(x=x[tells], y=y[tells], slope=slopes, length=along[tells, 0]), height)
    if bend is None:
        return boxes
    return [replace(box, top=box.top - drop, bottom=box.bottom - drop) for box, drop in zip(boxes, bend.drop(x, y).tolist(), strict=True)]


def _rows_in_order(boxes: Sequence[_Box], height: float) -> list[list[_Box]]:
    """Rows of boxes: bands from top to bottom, and where a run of bands has columns of running text, those one after the other."""
    ordered: list[list[_Box]] = []
    run: list[list[_Box]] = []
    gutters: list[_Span] = []
    whole = (min(box.left for box in boxes), max(box.right for box in boxes))
    for band in _bands(boxes):
        free = _wide(_common([whole], _free_spans(band)), height)
        common = [gutter for gutter in _wide(_common(gutters, free), height) if _parts(gutter, [*run, band])]
        if run and not common:
            ordered += _run_in_order(run, gutters, height)
            run = []
        run.append(band)
        gutters = common or free
    return ordered + _run_in_order(run, gutters, height)


def _parts(gutter: _Span, bands: Sequence[Sequence[_Box]]) -> bool:
    """Whether there is text on both sides: a margin parts nothing."""
    boxes = [box for band in bands for box in band]
    return any(box.right <= gutter[0] + 1 for box in boxes) and any(box.left >= gutter[1] - 1 for box in boxes)


def _run_in_order(run: Sequence[Sequence[_Box]], gutters: Sequence[_Span], height: float) -> list[list[_Box]]:
    boxes = [box for band in run for box in band]
    for start, end in gutters:
        middle = (start + end) / 2
        left = [box for box in boxes if box.right <= middle]
        right = [box for box in boxes if box.left >= middle]
        if left and right and _are_columns(left, right, height):
            return _rows_in_order(left, height) + _rows_in_order(right, height)
    return [row for band in run for row in _rows(band)]


def _are_columns(left: Sequence[_Box], right: Sequence[_Box], height: float) -> bool:
    """Whether both are running text; as full as that are forms whose pairs of labels and values stand in two columns."""
    if not _is_running_text(left, height) or not _is_running_text(right, height):
        return False
    lefts, rights = _rows(left), _rows(right)
    if not _are_aligned(lefts, rights):
        return True
    parted_by_colon = (
        _are_labelled(lefts, lambda row: _words(row)[-1].text.endswith(":"))
        or _share(rights, lambda row: _words(row)[0].text.startswith(":")) >= _LABELLED
    )
    are_uneven = any(len(_ending_before(_FULL, rows)) > (1 - _ALL_FULL) * len(rows) for rows in (lefts, rights))
    return not parted_by_colon and not all(_tells_pairs(rows, height, are_uneven) for rows in (lefts, rights))


def _is_running_text(boxes: Sequence[_Box], height: float) -> bool:
    rows = _rows(boxes)
    width = max(box.right for box in boxes) - min(box.left for box in boxes)
    # The cells of a table leave most of a row free, wherever they stand in it.
    full = _share(rows, lambda row: sum(box.width for box in row) >= _COLUMN_FULL * width)
    return len(rows) >= _COLUMN_LINES and width >= _COLUMN_HEIGHTS * height and full >= 0.5


def _are_aligned(lefts: Sequence[Sequence[_Box]], rights: Sequence[Sequence[_Box]]) -> bool:
    """Whether most rows of the side that has fewer stand at the height of one on the other side."""
    fewer, more = sorted((lefts, rights), key=len)
    return _share(fewer, lambda row: any(_is_level(row[0], other[0]) for other in more)) >= _ALIGNED


def _tells_pairs(rows: Sequence[Sequence[_Box]], height: float, are_uneven: bool) -> bool:
    """Whether rows are labels and values: by their colons, or as two columns of which the first is no running text."""
    if _are_labelled(rows, lambda row: tells_pair(_words(row)), are_uneven):
        return True
    parted = [row for row in rows if any(b.left - a.right >= _GUTTER_HEIGHTS * height for a, b in pairwise(row))]
    firsts = [row[0] for row in parted]
    is_parted = len(parted) >= _PARTED * len(rows) and max(box.width for box in firsts) >= _BULLET_HEIGHTS * height
    return is_parted and not _is_running_text(firsts, height)


def _are_labelled(rows: Sequence[Sequence[_Box]], is_labelled: Callable[[Sequence[_Box]], bool], may_be_full: bool = True) -> bool:
    """Whether many rows that end early have a colon, or, where rows may be full, nearly all do."""
    early = sum(map(is_labelled, _ending_before(_SHORT, rows)))
    return early >= _LABELLED * len(rows) or (may_be_full and _share(rows, is_labelled) >= _ALL_LABELLED)


def _ending_before(share: float, rows: Sequence[Sequence[_Box]]) -> list[Sequence[_Box]]:
    """The rows that end before so much of their column's width."""
    left, right = min(row[0].left for row in rows), max(row[-1].right for row in rows)
    return [row for row in rows if row[-1].right < left + share * (right - left)]


def _share(rows: Sequence[Sequence[_Box]], is_so: Callable[[Sequence[_Box]], bool]) -> float:
    return float(np.mean([is_so(row) for row in rows]))


def _bands(boxes: Iterable[_Box]) -> list[list[_Box]]:
    """Groups of boxes between which a level line can be drawn across the page."""
    bands: list[list[_Box]] = []
    bottom = -np.inf
    for box in sorted(boxes, key=lambda box: box.middle - box.height / 4):
        # Quads are grown beyond the ink: a quarter of their height is air.
        if bands and box.middle - box.height / 4 < bottom:
            bands[-1].append(box)
        else:
            bands.append([box])
        bottom = max(bottom, box.middle + box.height / 4)
    return bands


def _rows(boxes: Iterable[_Box]) -> list[list[_Box]]:
    """Boxes at one height, each row from left to right, rows from top to bottom."""
    rows: list[list[_Box]] = []
    for box in sorted(boxes, key=lambda box: box.middle):
        row = next((row for row in reversed(rows) if _share_row(row, box)), None)
        if row is None:
            rows.append([box])
        else:
            row.append(box)
    for row in rows:
        row.sort(key=lambda box: box.left)
    return sorted(rows, key=lambda row: float(np.mean([box.middle for box in row])))


def _share_row(row: Sequence[_Box], box: _Box) -> bool:
    if any(_is_upright(other) for other in (*row, box)):
        return False
    nearest = min(row, key=lambda other: max(other.left - box.right, box.left - other.right))
    overlap = min(nearest.right, box.right) - max(nearest.left, box.left)
    # Two boxes one above the other are two rows, however close.
    if overlap > 0.3 * min(nearest.width, box.width):
        return False
    return _is_level(nearest, box)


def _is_level(first: _Box, second: _Box) -> bool:
    return abs(first.middle - second.middle) < 0.35 * min(first.height, second.height)


def _is_upright(box: _Box) -> bool:
    return box.height >= _UPRIGHT_RATIO * box.width and len("".join(word.text for word in box.fragment.words)) > 1


def _free_spans(band: Sequence[_Box]) -> list[_Span]:
    """The spans of x in which there is no box."""
    free, reached = [], -np.inf
    for box in sorted(band, key=lambda box: box.left):
        if box.left > reached:
            free.append((reached, box.left))
        reached = max(reached, box.right)
    return [*free, (reached, np.inf)]


def _common(first: Iterable[_Span], second: Sequence[_Span]) -> list[_Span]:
    spans = [(max(a, c), min(b, d)) for a, b in first for c, d in second]
    return [span for span in spans if span[0] < span[1]]


def _wide(spans: Iterable[_Span], height: float) -> list[_Span]:
    return [span for span in spans if span[1] - span[0] >= _GUTTER_HEIGHTS * height]


def _line(row: Sequence[_Box], angle: float) -> Line:
    words = _words(row)
    letters = [len(word.text) for word in words]
    return Line(
        text=" ".join(word.text for word in words),
        confidence=float(np.average([word.confidence for word in words], weights=letters)),
        polygon=row[0].fragment.quad if len(row) == 1 else _enclosing([box.fragment.quad for box in row], angle),
        words=words,
    )


def _words(row: Sequence[_Box]) -> tuple[Word, ...]:
    return tuple(word for box in row for word in box.fragment.words)


def _enclosing(quads: Sequence[Quad], angle: float) -> Quad:
    points = np.concatenate([_turned(quad, -angle) for quad in quads])
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return _turned(corners, angle).astype(np.float32)


def _turned(points: NDArray[np.floating], angle: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.asarray(points.astype(np.float64) @ np.array([[cosine, sine], [-sine, cosine]]))
