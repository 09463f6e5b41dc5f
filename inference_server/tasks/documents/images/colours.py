"""Whether a page has colours. Most have none: then what would be done to three channels is done to one."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.values import Page


def grey_of(page: Page) -> NDArray[np.uint8] | None:
    """The channel [H, W] of a page whose three are the same; None of a coloured one."""
    red, green, blue = cv2.split(page)
    if cv2.norm(red, green, cv2.NORM_INF) or cv2.norm(green, blue, cv2.NORM_INF):
        return None
    return np.asarray(red, np.uint8)
