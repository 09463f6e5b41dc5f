"""Pages that are bent, or seen from the side: how far off the level their text lies, told by the slopes of its lines.

The picture is not touched: lines are cut out one by one, each along its own slope. What a bend disturbs is which of them share a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The slope of what is so many heights long tells how a page is bent.
_TELLING_HEIGHTS = 2.5
# Fewer lines do not tell a bend from the noise of their corners.
_FEWEST = 12
# A bend is believed that explains so much of the slopes, and moves text by so many heights.
_EXPLAINED = 0.5
_LEAST_HEIGHTS = 0.25
# Lines that disagree, such as stamps, count less with each turn of the fit (Cauchy weights).
_TURNS = 6
# Keeps terms small of which the page tells nothing, as a share of the lines' weight.
_RIDGE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Slopes:
    """Lines of text on a page that was turned straight, one element a line."""

    # Middles, in pixels.
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    # Pixels down for each to the right.
    slope: NDArray[np.float64]
    # In pixels.
    length: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Bend:
    """How far below the level text lies, by its place: slopes that grow with x, as on a curved page, and with y, as seen from the side."""

    # The middle of the page's text, in pixels, and half its larger side.
    x: float
    y: float
    unit: float
    # Of 1, x, x², x³, y and xy in the slope, in units.
    terms: NDArray[np.float64]

    def drop(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels by which text at x, y lies lower than where its row crosses the page's middle."""
        u, v = (x - self.x) / self.unit, (y - self.y) / self.unit
        return np.asarray(self.unit * (np.stack([u, u**2 / 2, u**3 / 3, u**4 / 4, u * v, u**2 * v / 2], axis=-1) @ self.terms))


def slopes_of(quads: Sequence[NDArray[np.floating]], height: float) -> Slopes:
    """Those of the quads that are level enough and, at so many pixels of text height, long enough to tell."""
    corners = np.array(quads, np.float64).reshape(-1, 4, 2)
    along = (corners[:, 1] + corners[:, 2] - corners[:, 0] - corners[:, 3]) / 2
    tells = (along[:, 0] >= _TELLING_HEIGHTS * height) & (np.abs(along[:, 1]) < np.tan(np.pi / 6) * along[:, 0])
    x, y = corners[tells].mean(axis=1).T
    along = along[tells]
    return Slopes(x=x, y=y, slope=along[:, 1] / along[:, 0], length=along[:, 0])


def bend_of(lines: Slopes, height: float) -> Bend | None:
    """The bend that the lines tell; None where there is none to speak of. `height`: of the text, in pixels."""
    if len(lines.x) < _FEWEST:
        return None
    (left, right), (top, bottom) = ((float(side.min()), float(side.max())) for side in (lines.x, lines.y))
    x, y, unit = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top, 1.0) / 2
    u, v = (lines.x - x) / unit, (lines.y - y) / unit
    shapes = np.stack([np.ones_like(u), u, u**2, u**3, v, u * v], axis=-1)
    bend = Bend(x=x, y=y, unit=unit, terms=_fitted(shapes, lines.slope, lines.length))
    before, after = (_usual(np.abs(slope), lines.length) for slope in (lines.slope, lines.slope - shapes @ bend.terms))
    drops = bend.drop(lines.x, lines.y)
    is_one = after <= _EXPLAINED * before and float(np.ptp(drops)) >= _LEAST_HEIGHTS * height
    return bend if is_one else None


def _fitted(shapes: NDArray[np.float64], slopes: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Terms of least weighted squares, lines that disagree weighted down."""
    terms = np.zeros(shapes.shape[1])
    trust = weights
    for _ in range(_TURNS):
        weighted = shapes * trust[:, None]
        terms = np.linalg.solve(weighted.T @ shapes + _RIDGE * trust.sum() * np.eye(len(terms)), weighted.T @ slopes)
        off = np.abs(slopes - shapes @ terms)
        trust = weights / (1 + (off / max(2 * _usual(off, weights), 1e-4)) ** 2)
    return terms


def _usual(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The weighted median."""
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)])
