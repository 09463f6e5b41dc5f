"""Fragments that were read become lines in reading order: across rows, and down columns of running text one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.detection.bend import bend_of, slopes_of
from inference_server.tasks.documents.layout.columns import are_columns, lines_apart
from inference_server.tasks.documents.layout.rows import GUTTER_HEIGHTS, Box, Fragment, bands_of, rows_of, words_of
from inference_server.tasks.documents.values import Line, Quad

# Below this a page counts as straight, in radians.
_STRAIGHT = 0.001


# From one x to another.
_Span = tuple[float, float]


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


def _straight_box(fragment: Fragment, angle: float) -> Box:
    first, second, third, last = _turned(fragment.quad, -angle).tolist()
    # Halfway between the bounds of the corners and the quad's own sides, a tilted quad does not swell.
    left, right = (first[0] + last[0]) / 2, (second[0] + third[0]) / 2
    top, bottom = (first[1] + second[1]) / 2, (third[1] + last[1]) / 2
    return Box(left=left, right=max(right, left + 1), top=top, bottom=max(bottom, top + 1), fragment=fragment)


def _level_boxes(boxes: Sequence[Box], angle: float, height: float) -> Sequence[Box]:
    """The boxes where they would lie if the page were flat."""
    quads = [_turned(quad, -angle) for box in boxes for quad in box.fragment.quads]
    bend = bend_of(slopes_of(quads, height), height)
    if bend is None:
        return boxes
    x, y = np.array([((box.left + box.right) / 2, box.middle) for box in boxes]).T
    return [replace(box, top=box.top - drop, bottom=box.bottom - drop) for box, drop in zip(boxes, bend.drop(x, y).tolist(), strict=True)]


def _rows_in_order(boxes: Sequence[Box], height: float) -> list[list[Box]]:
    """Rows of boxes: bands from top to bottom, and where a run of bands has columns of running text, those one after the other."""
    if not boxes:
        return []
    ordered: list[list[Box]] = []
    run: list[list[Box]] = []
    gutters: list[_Span] = []
    whole = (min(box.left for box in boxes), max(box.right for box in boxes))
    for band in bands_of(boxes):
        free = _wide(_common([whole], _free_spans(band)), height)
        common = [gutter for gutter in _wide(_common(gutters, free), height) if _parts(gutter, [*run, band])]
        if run and not common:
            ordered += _run_in_order(run, gutters, height)
            run = []
        run.append(band)
        gutters = common or free
    return ordered + _run_in_order(run, gutters, height)


def _parts(gutter: _Span, bands: Sequence[Sequence[Box]]) -> bool:
    """Whether there is text on both sides: a margin parts nothing."""
    boxes = [box for band in bands for box in band]
    return any(box.right <= gutter[0] + 1 for box in boxes) and any(box.left >= gutter[1] - 1 for box in boxes)


def _run_in_order(run: Sequence[Sequence[Box]], gutters: Sequence[_Span], height: float) -> list[list[Box]]:
    boxes = [box for band in run for box in band]
    for start, end in gutters:
        middle = (start + end) / 2
        left = [box for box in boxes if box.right <= middle]
        right = [box for box in boxes if box.left >= middle]
        sides = rows_of(left), rows_of(right)
        if left and right and are_columns(*sides, height):
            if lines := lines_apart(*sides, height):
                others = [box for box in boxes if not any(box is line for line in lines)]
                above, below = ([box for box in others if (box.middle > lines[0].middle) is is_below] for is_below in (False, True))
                return [*_rows_in_order(above, height), *rows_of(lines), *_rows_in_order(below, height)]
            return _rows_in_order(left, height) + _rows_in_order(right, height)
    return [row for band in run for row in rows_of(band)]


def _free_spans(band: Sequence[Box]) -> list[_Span]:
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
    return [span for span in spans if span[1] - span[0] >= GUTTER_HEIGHTS * height]


def _line(row: Sequence[Box], angle: float) -> Line:
    words = words_of(row)
    quads = [quad for box in row for quad in box.fragment.quads]
    letters = [len(word.text) for word in words]
    return Line(
        text=" ".join(word.text for word in words),
        confidence=float(np.average([word.confidence for word in words], weights=letters)),
        polygon=quads[0] if len(quads) == 1 else _enclosing(quads, angle),
        words=words,
    )


def _enclosing(quads: Sequence[Quad], angle: float) -> Quad:
    points = np.concatenate([_turned(quad, -angle) for quad in quads])
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    return _turned(corners, angle).astype(np.float32)


def _turned(points: NDArray[np.floating], angle: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.asarray(points.astype(np.float64) @ np.array([[cosine, sine], [-sine, cosine]]))
