"""Where a page or a line has ink, and where it has none."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.images.margins import Area
from inference_server.tasks.documents.images.specks import is_speckled
from inference_server.tasks.documents.images.spots import bounds_of, marked_of

# The share of rows at the top and at the bottom of a line that shows neighbouring lines and rules.
_MARGIN = 1 / 8
# A run of ink of so many heights of a line's picture is a rule under or over its text, looked for where a row has so much ink.
_RULE_HEIGHTS, _RULE_SHARE = 1.5, 0.4
# Rules above and below a line are no higher together, as a share of it: what is higher is a dark ground.
_MOST_RULES = 1 / 4
# The light that falls on a line is measured in one of so many rows and columns. It differs by a shadow from so many levels of 255 on;
# where it is lower than the last, there is a dark ground.
_LIGHT_STEP, _SHADOW, _DARK = 4, 40, 48
# As wide as a stroke of a letter, in such columns.
_STROKE = np.ones((1, 5), np.uint8)
# What differs from the light by the first share is print. Of that in a shadow, less than the second is lighter.
_PRINT, _MOST_LIGHTER = 1 / 4, 0.06
# Letters are measured on a page of this shorter side: small enough to be quick, large enough to be told from specks.
_MEASURED_SIDE = 1000
# Spots of ink that are so high, in pixels there, so much wider than high at most, and so many, are letters.
_LETTER_HEIGHTS = (4, 60)
_LETTER_RATIO = 4
_LEAST_LETTERS = 40
# The height that this share of the letters do not reach is that of the page's small text.
_SMALL_SHARE = 0.3


def ink_of(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels of a line [H, W, 3] are ink: those on the rarer side of Otsu's threshold (Otsu 1979), margins and rules left out."""
    marked = marked_of(_evenly_lit(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)))
    margin = int(len(marked) * _MARGIN)
    marked[:margin] = 0
    marked[len(marked) - margin :] = 0
    _erase_rules(marked)
    return marked.astype(np.bool_)


def last_row_of(ink: NDArray[np.bool_]) -> int:
    """The last row of a line of which `ink_of` tells whether it has ink; what stands there may go on below, in the margin."""
    return len(ink) - int(len(ink) * _MARGIN) - 1


def _evenly_lit(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A grey line [H, W] as it would be without the shadow across it, all of which would be on one side of a threshold."""
    # Of most columns more than half is paper: their median tells its light. Those of upright strokes, narrow ones, are closed.
    some = gray[::_LIGHT_STEP, ::_LIGHT_STEP]
    median = np.partition(some, len(some) // 2, axis=0)[len(some) // 2]
    middle = np.asarray(cv2.morphologyEx(median[None], cv2.MORPH_CLOSE, _STROKE), np.uint8)[0]
    light = cv2.blur(middle[None], (len(some), 1))
    least, most = int(light.min()), int(light.max())
    if least < _DARK or most - least < _SHADOW or _is_ground(some, middle, light[0], light[0] <= most - _SHADOW):
        return gray
    levels = cv2.resize(light.astype(np.float32), (gray.shape[1], 1), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.multiply(gray, np.repeat(most / levels, len(gray), axis=0), dtype=cv2.CV_8U), np.uint8)


def _is_ground(some: NDArray[np.uint8], middle: NDArray[np.uint8], light: NDArray[np.uint8], dim: NDArray[np.bool_]) -> bool:
    """Whether columns are dim by what is printed there: light letters on a coloured ground, or bold ones. In a shadow print is darker."""
    margin = int(len(some) * _MARGIN) + 1
    pixels = some[margin : len(some) - margin, dim].astype(np.float32)
    # At the edges of a shadow whole columns are lighter than the light around them.
    is_edge = middle[dim] > (1 + _PRINT) * light[dim]
    lighter = (pixels > (1 + _PRINT) * light[dim]) & ~is_edge
    darker = pixels < (1 - _PRINT) * light[dim]
    return int(np.count_nonzero(lighter)) > _MOST_LIGHTER * int(np.count_nonzero(darker))


def _erase_rules(marked: NDArray[np.uint8]) -> None:
    """Take level rules out of a marked line [H, W]: they run on through the gaps between its words."""
    height, width = marked.shape
    # Odd: what is opened by an even length lies a pixel aside.
    length = int(_RULE_HEIGHTS * height) | 1
    fullest = cv2.reduce(marked, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).max(initial=0)
    if width <= length or fullest < max(length, _RULE_SHARE * width):
        return
    rules = cv2.morphologyEx(marked, cv2.MORPH_OPEN, np.ones((1, length), np.uint8))
    if cv2.reduce(rules, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).max(initial=0) > _MOST_RULES * height:
        return
    # Above and below, a rule's edge is ink here and there.
    marked[cv2.dilate(rules, np.ones((3, 1), np.uint8)) > 0] = 0


@dataclass(frozen=True, kw_only=True)
class Print:
    """What a page is printed with."""

    # How high its small letters are, in its pixels; None where too few are told apart.
    letter_height: float | None
    # Whether specks lie among them.
    is_speckled: bool


def print_of(gray: NDArray[np.uint8], area: Area) -> Print:
    """Measure the print of a grey page [H, W]; `area`: where it is."""
    scale = max(1.0, min(gray.shape) / _MEASURED_SIDE)
    if scale > 1:
        gray = np.asarray(cv2.resize(gray, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA), np.uint8)
    left, top, right, bottom = (round(side / scale) for side in (area.left, area.top, area.right, area.bottom))
    spots = bounds_of(marked_of(gray)[top:bottom, left:right])
    _, _, widths, heights = spots.T
    least, most = _LETTER_HEIGHTS
    letters = heights[(heights >= least) & (heights <= most) & (widths >= 2) & (widths <= _LETTER_RATIO * heights)]
    return Print(
        letter_height=float(np.quantile(letters, _SMALL_SHARE)) * scale if len(letters) >= _LEAST_LETTERS else None,
        is_speckled=is_speckled(spots, len(letters)),
    )


def ink_height(ink: NDArray[np.bool_]) -> int:
    """The rows from the first to the last that have ink, specks left out."""
    rows = np.flatnonzero(cv2.reduce(ink.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S) > 0.02 * ink.shape[1])
    return int(rows[-1] - rows[0] + 1) if len(rows) else len(ink)


class Gaps:
    """The runs of columns without ink of a line, found once: they are asked for between each two of its characters."""

    def __init__(self, columns: NDArray[np.bool_]) -> None:
        """`columns`: which of them have ink."""
        blank = np.zeros(len(columns) + 2, np.bool_)
        np.logical_not(columns, out=blank[1:-1])
        edges = np.flatnonzero(blank[1:] != blank[:-1]).tolist()
        self._starts, self._ends = edges[::2], edges[1::2]

    def widest(self, first: int, last: int) -> tuple[int, int]:
        """The widest of them between two x, as its first x and the x after it; empty, in the middle, where there is none."""
        found = ((first + last) // 2,) * 2
        for index in range(bisect_right(self._ends, first), bisect_left(self._starts, last)):
            start, end = max(first, self._starts[index]), min(last, self._ends[index])
            if end - start > found[1] - found[0]:
                found = start, end
        return found
