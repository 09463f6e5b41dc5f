"""How good the picture of a page is: how sharp, how burnt out, how large and how strong its text."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.images.glare import glare_of
from inference_server.tasks.documents.values import Line, Page, PageQuality, Quad

# Lines are compared at one height and contrast: the variance of the Laplacian (Pech-Pacheco et al., "Diatom autofocusing in brightfield
# microscopy", ICPR 2000) depends on both, and tells nothing of two pictures that differ in them.
_HEIGHT = 16
# So many lines, spread over the page, stand for all.
_MOST_LINES = 16
# A line with less contrast has more noise than ink.
_LEAST_CONTRAST = 0.05
# Second derivatives of one direction each, and their variance beside the Laplacian's where the characters are read as well: motion along a
# direction takes that one's alone. Letters have more upright strokes than level ones.
_DIRECTIONS = (
    (np.array([[0, 0, 0], [1, -2, 1], [0, 0, 0]], np.float32), 1.3),
    (np.array([[0, 1, 0], [0, -2, 0], [0, 1, 0]], np.float32), 1.4),
    (np.array([[1, 0, 0], [0, -2, 0], [0, 0, 1]], np.float32), 0.5),
    (np.array([[0, 0, 1], [0, -2, 0], [1, 0, 0]], np.float32), 0.5),
)


def page_quality(page: Page, lines: Sequence[Line]) -> PageQuality:
    """Measure a page by the lines that were read on it; blocks for some milliseconds."""
    if not lines:
        return PageQuality(sharpness=None, glare=0.0, text_height=0.0, contrast=0.0)
    quads = [line.polygon for line in lines]
    crops = [_line_image(page, quad) for quad in quads[:: -(-len(quads) // _MOST_LINES)]]
    contrasts = [_contrast(crop) for crop in crops]
    sharpness = [_sharpness(crop, contrast) for crop, contrast in zip(crops, contrasts, strict=True) if contrast >= _LEAST_CONTRAST]
    return PageQuality(
        sharpness=float(np.median(sharpness)) if sharpness else 0.0,
        glare=glare_of(page, quads, crops),
        text_height=float(np.median([_size(quad)[1] for quad in quads])),
        contrast=float(np.median(contrasts)),
    )


def _size(quad: Quad) -> tuple[float, float]:
    return float(np.hypot(*(quad[1] - quad[0]))), float(np.hypot(*(quad[3] - quad[0])))


def _line_image(page: Page, quad: Quad) -> NDArray[np.float32]:
    """A line, straight and at the one height, grey from 0 to 1."""
    width, height = _size(quad)
    wide = int(np.clip(round(width * _HEIGHT / max(height, 1.0)), _HEIGHT, 20 * _HEIGHT))
    # Only the part of the page around the line is turned grey.
    (left, top), (right, bottom) = np.floor(quad.min(axis=0)).astype(int), np.ceil(quad.max(axis=0)).astype(int)
    left, top = max(left - 2, 0), max(top - 2, 0)
    grey = cv2.cvtColor(np.ascontiguousarray(page[top : bottom + 3, left : right + 3]), cv2.COLOR_RGB2GRAY)
    if height > 1.5 * _HEIGHT:
        # A warp takes single pixels: what is made much smaller is smoothed first, as a scanner would.
        scale = _HEIGHT / height
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    else:
        scale = 1.0
    corners = ((quad - (left, top)) * scale).astype(np.float32)
    target = np.array([(0, 0), (wide, 0), (wide, _HEIGHT), (0, _HEIGHT)], np.float32)
    warped = cv2.warpPerspective(grey, cv2.getPerspectiveTransform(corners, target), (wide, _HEIGHT), borderMode=cv2.BORDER_REPLICATE)
    return np.divide(warped, 255, dtype=np.float32)


def _contrast(crop: NDArray[np.float32]) -> float:
    ordered = np.sort(crop, axis=None)
    return float(ordered[int(0.95 * ordered.size)] - ordered[int(0.05 * ordered.size)])


def _sharpness(crop: NDArray[np.float32], contrast: float) -> float:
    """Of the direction in which it is least sharp."""
    level = crop / contrast
    directed = [weight * float(cv2.filter2D(level, cv2.CV_32F, kernel).var()) for kernel, weight in _DIRECTIONS]
    return min(float(cv2.Laplacian(level, cv2.CV_32F).var()), *directed)
