"""Specks, such as copies and faxes have: the detector takes the text between them for noise, so that it is shown the page without them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.images.spots import marked_of

# A speck is at most so many pixels wide and high, and as far from anything else as a pixel: dots of letters and of dotted print are not.
_LARGEST = 3
_APART = 3
# A page that has so many, and so many for each letter, is speckled. Clean pages have up to 0.3 (dots and stops), archives' forms 2.
_LEAST, _A_LETTER = 100, 2.5
# What lies around a speck tells the paper's colour; an odd number of pixels.
_PAPER = 7


def is_speckled(spots: NDArray[np.int32], letters: int) -> bool:
    """Whether a page has many more specks than letters. `spots`: of its ink, as `bounds_of` tells them."""
    return int(np.count_nonzero(spots[:, 2:4].max(axis=1, initial=0) <= _LARGEST)) >= max(_LEAST, _A_LETTER * letters)


def without_specks(page: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The page, grey [H, W] or coloured [H, W, 3], of the paper's colour where a speck of its ink stands alone."""
    gray = page if page.ndim == 2 else np.asarray(cv2.cvtColor(page, cv2.COLOR_RGB2GRAY), np.uint8)
    around = cv2.dilate(marked_of(gray), np.ones((_APART, _APART), np.uint8))
    _, numbers, spots, _ = cv2.connectedComponentsWithStats(around, connectivity=8, ltype=cv2.CV_32S)
    largest = _LARGEST + _APART - 1
    is_speck = (spots[:, 2] <= largest) & (spots[:, 3] <= largest)
    is_speck[0] = False
    cleaned = page.copy()
    place = is_speck[numbers]
    cleaned[place] = np.asarray(cv2.medianBlur(page, _PAPER), np.uint8)[place]
    return cleaned
