"""Where a line has ink, and where it has none."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# The share of rows at the top and at the bottom of a line that shows neighbouring lines and rules.
_MARGIN = 1 / 8


def ink_of(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels of a line [H, W, 3] are ink: those on the rarer side of Otsu's threshold (Otsu 1979), margins left out."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    _, dark = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    ink = np.asarray(dark, np.bool_)
    if ink.mean() > 0.5:
        ink = ~ink
    margin = int(len(ink) * _MARGIN)
    ink[:margin] = False
    ink[len(ink) - margin :] = False
    return ink


def ink_height(ink: NDArray[np.bool_]) -> int:
    """The rows from the first to the last that have ink, specks left out."""
    rows = np.flatnonzero(ink.sum(axis=1) > 0.02 * ink.shape[1])
    return int(rows[-1] - rows[0] + 1) if len(rows) else len(ink)


def widest_gap(columns: NDArray[np.bool_], first: int, last: int) -> tuple[int, int]:
    """The widest run of columns without ink between two x, as its first x and the x after it; empty, in the middle, where there is none."""
    blank = ~columns[first:last]
    edges = np.flatnonzero(np.diff(np.r_[False, blank, False].astype(np.int8)))
    if not len(edges):
        return (first + last) // 2, (first + last) // 2
    starts, ends = edges[::2], edges[1::2]
    widest = int(np.argmax(ends - starts))
    return first + int(starts[widest]), first + int(ends[widest])
