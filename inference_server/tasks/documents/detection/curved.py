"""Lines of text that bend within themselves, as on a page that curls: how they run, told by the detector's cores.

A core follows its line along the curve. What is level is boxed; a core that fills too little of its box is taken column by column.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.values import Outline, Quad

# A core that bends fills less of its box than this, and is so many times longer than high; straight ones fill 0.8 and more.
_MOST_FILLED = 0.75
_LEAST_RATIO = 4.0
# Such a polynomial tells how it runs: a page's curl has no more turns within a line.
_DEGREE = 5
# What runs so far off it, as a share of the core's height, is several lines, or none; likewise one that is higher or lower than it is as
# a rule, by this share, in more than this share of its columns.
_MOST_OFF = 0.25
_UNEVEN, _MOST_UNEVEN = 0.5, 0.15
# Lines are followed in steps of so many heights, so many at most.
_STEP_HEIGHTS = 1.5
_MOST_STEPS = 60


# Middle, size and angle, as OpenCV tells them.
Rectangle = tuple[Sequence[float], Sequence[float], float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How the core of a bent line runs."""

    # Where its box begins, and the directions along and across it; x, y.
    origin: NDArray[np.float64]
    along: NDArray[np.float64]
    across: NDArray[np.float64]
    # In pixels.
    length: float
    height: float
    # How far across the box its middle lies, by the place along it from -1 to 1.
    middle: np.polynomial.Polynomial

    def outline(self, growth: float) -> Outline:
        """The core grown by `growth` pixels on all sides."""
        height = self.height + 2 * growth
        place = np.linspace(-growth, self.length + growth, _steps(self.length, height) + 1)
        # Beyond its ends the line goes on as it ended.
        inside = place.clip(0, self.length)
        unit = 2 * inside / self.length - 1
        middle = self.middle(unit) + self.middle.deriv()(unit) * 2 / self.length * (place - inside)
        edges = [self.origin + place[:, None] * self.along + (middle + side)[:, None] * self.across for side in (-height / 2, height / 2)]
        return np.concatenate([edges[0], edges[1][::-1]]).astype(np.float32)


def may_bend(contour: cv2.typing.MatLike, rectangle: Rectangle) -> bool:
    """Whether a core fills so little of the least rectangle around it that it is no straight line."""
    length, width = max(rectangle[1]), min(rectangle[1])
    return length >= _LEAST_RATIO / 2 * width and cv2.contourArea(contour) < _MOST_FILLED * length * width


def curve_of(contour: cv2.typing.MatLike, rectangle: Rectangle) -> Curve | None:
    """How a core runs that may bend; None where it is no line, as where those of two lines hang together."""
    length, width = max(rectangle[1]), min(rectangle[1])
    corners = _from_the_left(np.asarray(cv2.boxPoints(rectangle), np.float64))
    origin, along, across = corners[0], (corners[1] - corners[0]) / length, (corners[3] - corners[0]) / width
    core = _level(contour, origin, along, across, (round(length), round(width)))
    heights = core.sum(axis=0)
    height = float(np.median(heights[heights > 0]))
    # From its first to its last row there is nothing else than one line.
    spans = len(core) - core.argmax(axis=0) - core[::-1].argmax(axis=0)
    columns = np.flatnonzero((np.abs(heights - height) <= _UNEVEN * height) & (spans <= (1 + _UNEVEN) * height))
    if length < _LEAST_RATIO * height or len(columns) < max((1 - _MOST_UNEVEN) * core.shape[1], _DEGREE + 1):
        return None
    middles = (core[:, columns] * np.arange(len(core))[:, None]).sum(axis=0) / heights[columns]
    middle = np.polynomial.Polynomial.fit(columns, middles, _DEGREE, domain=[0, length])
    if np.sqrt(np.mean((middle(columns) - middles) ** 2)) > _MOST_OFF * height:
        return None
    unit = np.polynomial.Polynomial(middle.coef)
    return Curve(origin=origin, along=along, across=across, length=length, height=height, middle=unit)


def edges_of(outline: Outline) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The upper and the lower edge, both from left to right [N, 2]."""
    count = len(outline) // 2
    return outline[:count], outline[: count - 1 : -1]


def points_at(edge: NDArray[np.floating], places: NDArray[np.floating], at: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points between those of an edge [N, 2], which lie at some places along it [N]; [M, 2]."""
    return np.column_stack([np.interp(at, places, edge[:, axis]) for axis in (0, 1)])


def steps_of(outline: Outline) -> int:
    """In how many steps a line is to be followed."""
    upper, lower = edges_of(outline)
    return _steps(float(np.linalg.norm(np.diff(upper, axis=0), axis=1).sum()), float(np.linalg.norm(lower - upper, axis=1).mean()))


def _steps(length: float, height: float) -> int:
    return int(np.clip(round(length / (_STEP_HEIGHTS * max(height, 1.0))), 2, _MOST_STEPS))


def parts_of(outline: Outline) -> tuple[Quad, ...]:
    """Quads of two steps each, so that their slopes tell something."""
    upper, lower = edges_of(outline)
    cuts = [*range(0, len(upper) - 2, 2), len(upper) - 1]
    return tuple(np.array([upper[a], upper[b], lower[b], lower[a]]) for a, b in itertools.pairwise(cuts))


def tangent_of(outline: Outline) -> Quad:
    """The quad that touches the line in its middle and is as long and as high."""
    upper, lower = edges_of(outline)
    middles = (upper + lower) / 2
    center = len(middles) // 2
    before, after = middles[max(center - 1, 0)], middles[min(center + 1, len(middles) - 1)]
    along = (after - before) / np.linalg.norm(after - before)
    across = (lower - upper).mean(axis=0) / 2
    first, last = (float((end - middles[center]) @ along) for end in (middles[0], middles[-1]))
    left, right = middles[center] + first * along, middles[center] + last * along
    return np.array([left - across, right - across, right + across, left + across], np.float32)


def _from_the_left(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The corners of a box clockwise, so that its longer side comes first and leads to the right, or down."""
    if np.linalg.norm(corners[1] - corners[0]) < np.linalg.norm(corners[2] - corners[1]):
        corners = np.roll(corners, -1, axis=0)
    side = corners[1] - corners[0]
    leads_on = side[0] > 0 if abs(side[0]) >= abs(side[1]) else side[1] > 0
    return corners if leads_on else np.roll(corners, -2, axis=0)


def _level(
    contour: cv2.typing.MatLike,
    origin: NDArray[np.float64],
    along: NDArray[np.float64],
    across: NDArray[np.float64],
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    """A core within its box, as if that were level: 1 where it is; `size`: width and height."""
    left, top, width, height = cv2.boundingRect(contour)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [contour - (left, top)], 1)
    to_mask = np.column_stack([along, across, origin - (left, top)])
    return np.asarray(cv2.warpAffine(mask, to_mask, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP), np.uint8)
