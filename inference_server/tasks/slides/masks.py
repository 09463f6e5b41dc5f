"""What masks of cells have in common."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def majority(mask: Mask, edge: int) -> Mask:
    """Each cell takes the majority of the `edge` × `edge` cells around it, which drops specks and closes pinholes."""
    # Past the edge a cell's own row or column goes on, so that what is cut by the edge keeps its border there.
    counts = cv2.boxFilter(mask.astype(np.uint8), -1, (edge, edge), normalize=False, borderType=cv2.BORDER_REPLICATE)
    found: Mask = counts > edge**2 // 2
    return found


def grown(sure: Mask, likely: Mask, least_share: float = 0.0) -> Mask:
    """What is sure, and what is likely and hangs together with it: regions of which at least a share is sure."""
    count, labels = cv2.connectedComponents((sure | likely).astype(np.uint8), connectivity=8)
    surely = np.bincount(labels[sure], minlength=count)
    kept = (surely > 0) & (surely >= least_share * np.bincount(labels.reshape(-1), minlength=count))
    kept[0] = False
    found: Mask = kept[labels] | sure
    return found
