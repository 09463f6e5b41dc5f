"""The part of a page that has anything on it: where paper is blank, there is nothing to look for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.images.spots import spots_of

# Looked at on a page of this shorter side: noise is averaged away there, and strokes of letters are not.
_SIDE = 400
# A spot has something on it where light and dark differ by so many levels of 255 between neighbours, and so many times what is usual on
# the page's quietest tenth: noise of a normal kind reaches twice that there, and 3.5 times that somewhere on a page.
_LEAST_CONTRAST = 8
_QUIET_SHARE = 0.1
_NOISE_TIMES = 5
# Smaller spots are specks, in pixels there: one between four pixels differs from its sixteen.
_SPECK = 17
# What lies in so many pixels along the edges is the edge of the sheet; text that begins there is seen by what lies further in.
_EDGE = 4
# On a page that is as noisy as this nothing is sure to be blank.
_MOST_NOISE = 15


@dataclass(frozen=True, kw_only=True)
class Area:
    """A part of a page, in its pixels."""

    left: int
    top: int
    # Of the first column and row behind it.
    right: int
    bottom: int


def written_area(gray: NDArray[np.uint8]) -> Area:
    """What is left of a grey page [H, W] without its blank margins; all of it where nothing or everything is blank."""
    height, width = gray.shape
    shrink = max(1.0, min(height, width) / _SIDE)
    small = cv2.resize(gray, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA) if shrink > 1 else gray
    contrast = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    levels = np.cumsum(np.bincount(contrast.ravel(), minlength=256))
    noise = int(np.searchsorted(levels, _QUIET_SHARE * contrast.size))
    marks = (contrast > max(_LEAST_CONTRAST, _NOISE_TIMES * noise)).astype(np.uint8)
    for edge in (marks[:_EDGE], marks[-_EDGE:], marks[:, :_EDGE], marks[:, -_EDGE:]):
        edge[:] = 0
    spots = spots_of(marks)
    spots = spots[spots[:, 4] >= _SPECK]
    if noise > _MOST_NOISE or not len(spots):
        return Area(left=0, top=0, right=width, bottom=height)
    lefts, tops, widths, heights = spots[:, :4].T
    return Area(
        left=int(lefts.min() * shrink),
        top=int(tops.min() * shrink),
        right=min(width, math.ceil(int((lefts + widths).max()) * shrink)),
        bottom=min(height, math.ceil(int((tops + heights).max()) * shrink)),
    )
