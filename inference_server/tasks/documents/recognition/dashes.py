"""A dash that stands alone, as in an empty cell of a table: a recogniser of lines hardly knows it, its shape does."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from inference_server.tasks.documents.images.ink import ink_of
from inference_server.tasks.documents.recognition.recogniser import Character, Crop

# What a dash is read as. Where small, the two of an equals sign run into one, which is told apart by what was read.
_READ_AS = frozenset("-‐‑‒–—―−_ー一")
# A crop of more of its heights holds more than a dash.
_MOST_HEIGHTS = 1.25
# A dash is so much wider than high, at most this share of the crop's height, and lies between these two.
_LEAST_RATIO, _MOST_HEIGHT, _BETWEEN = 1.6, 0.3, (0.25, 0.75)
# So much of its bounds is ink.
_LEAST_FILLED = 0.75


def dash_in(crop: Crop, read: Sequence[Character]) -> Character | None:
    """The dash that is all that a crop shows; None where it shows anything else. `read`: what it was read as."""
    if crop.width > _MOST_HEIGHTS * len(crop.image) or len(read) > 1 or any(character.text not in _READ_AS for character in read):
        return None
    ink = ink_of(crop.image)
    left, top, width, height = cv2.boundingRect(ink.view(np.uint8))
    if not width or width < _LEAST_RATIO * height or height > _MOST_HEIGHT * len(ink) or width == crop.width:
        return None
    first, last = (share * len(ink) for share in _BETWEEN)
    filled = float(ink[top : top + height, left : left + width].mean())
    if not first <= top + height / 2 <= last or filled < _LEAST_FILLED:
        return None
    return Character(text="-", confidence=filled, x=left + width / 2)
