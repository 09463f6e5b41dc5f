"""Spots of a picture: connected pixels, with their bounds and sizes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# OpenCV numbers spots anew in each run of pixels that joins no other; numbers of 16 bits hold so many.
_MOST_SHORT = 65_535
# Outlines of spots are followed on pictures with at most so many runs of pixels: beyond, spots may be so many that to number all pixels is
# the lesser work, which takes as long however few there are.
_MOST_FOLLOWED = 12_000
# Ink is so much darker than the mean of so many pixels around it each way.
_AROUND, _DARKER = 25, 30


def marked_of(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where a grey picture has ink: on the rarer side of Otsu's threshold (Otsu 1979), else 0; [H, W]."""
    _, dark = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    return np.asarray(1 - dark if 2 * cv2.countNonZero(dark) > dark.size else dark, np.uint8)


def darker_of(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where a grey picture [H, W] is darker than what lies around, faint rules included, else 0."""
    return np.asarray(cv2.adaptiveThreshold(gray, 1, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, _AROUND, _DARKER), np.uint8)


def strokes_of(marked: NDArray[np.uint8], size: tuple[int, int], blur: tuple[int, int]) -> NDArray[np.uint8]:
    """What of a marked picture [H, W] is as high and wide as `size`, once it was made wider by `blur`, so that askew strokes stay whole."""
    wider = cv2.dilate(marked, np.ones(blur, np.uint8))
    return np.asarray(cv2.morphologyEx(wider, cv2.MORPH_OPEN, np.ones(size, np.uint8)), np.uint8)


def spots_of(marked: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Of each spot of pixels that are not 0, connected by sides or corners: left, top, width, height and pixels [N, 5].

    `marked`: [H, W]. Numbers of 16 bits are a third of the work of longer ones, and do wherever no more runs begin.
    """
    return _numbered(marked, _runs_of(marked))


def bounds_of(marked: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Of each spot as in `spots_of`, in any order: left, top, width and height [N, 4]."""
    runs = _runs_of(marked)
    if not 0 < runs <= _MOST_FOLLOWED:
        return _numbered(marked, runs)[:, :4]
    outlines, places = cv2.findContours(marked, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # Outlines of holes have a parent.
    spots = [cv2.boundingRect(outline) for outline, parent in zip(outlines, places[0, :, 3].tolist(), strict=True) if parent < 0]
    return np.array(spots, np.int32)


def _numbered(marked: NDArray[np.uint8], runs: int) -> NDArray[np.int32]:
    if not marked.size:
        return np.empty((0, 5), np.int32)
    numbers = cv2.CV_16U if runs < _MOST_SHORT else cv2.CV_32S
    _, _, spots, _ = cv2.connectedComponentsWithStats(marked, connectivity=8, ltype=numbers)
    # The first is all that is not marked.
    return np.asarray(spots[1:], np.int32)


def _runs_of(marked: NDArray[np.uint8]) -> int:
    """Runs of marked pixels in its rows."""
    return int(np.count_nonzero(marked[:, 1:] > marked[:, :-1]) + np.count_nonzero(marked[:, :1]))
