"""Pages that bend so much that the detector joins neighbouring lines: made level by the bend that their lines tell, and looked at again.

The level page is for the detector alone. Lines are cut out of the page as it came, along the curve to which their outlines are taken back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.documents.detection.bend import Bend, bend_of, slopes_of
from inference_server.tasks.documents.detection.curved import edges_of, parts_of, points_at, steps_of
from inference_server.tasks.documents.values import Outline, Page

# The bend is worked out at every so many pixels; between them it is as good as straight.
_GRID = 16
# How often a place is corrected by the bend where it was found: each time it errs by a tenth or less of what it did.
_TURNS = 4


@dataclass(frozen=True, kw_only=True)
class LeveledPage:
    """A page made level."""

    page: Page
    # Of this page, in its pixels, less `above`.
    bend: Bend
    # Rows that it has above what it was made of.
    above: int
    # Pixels of it for each of the page as it came.
    scale: float

    def back(self, outline: Outline) -> Outline:
        """An outline of this page on the page as it came."""
        places = np.arange(len(outline) / 2)
        at = np.linspace(0, places[-1], steps_of(outline) + 1)
        edges = [points_at(edge, places, at).T for edge in edges_of(outline)]
        bent = [np.stack([x, _bent(self.bend, x, y - self.above)], axis=1) for x, y in edges]
        return np.asarray(np.concatenate([bent[0], bent[1][::-1]]) / self.scale, np.float32)


def leveled(page: Page, outlines: Sequence[Outline], most_short_side: int) -> LeveledPage | None:
    """The page level, its shorter side at most so long; None where its lines, as far as they were found, tell no bend."""
    parts = [part for outline in outlines for part in (parts_of(outline) if len(outline) > 4 else (outline,))]
    height = float(np.median([np.linalg.norm(part[3] - part[0]) for part in parts])) if parts else 0.0
    bend = bend_of(slopes_of(parts, height), height)
    if bend is None:
        return None
    scale = min(1.0, most_short_side / min(page.shape[:2]))
    small = cv2.resize(page, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else np.ascontiguousarray(page)
    bend = replace(bend, x=bend.x * scale, y=bend.y * scale, unit=bend.unit * scale)
    rows, columns = small.shape[:2]
    x, y = (np.arange(0, side + _GRID, _GRID, dtype=np.float64) for side in (columns, rows))
    above = math.ceil(float(np.abs(bend.drop(*np.meshgrid(x, y))).max()))
    x, y = np.meshgrid(x, np.arange(-above, rows + above + _GRID, _GRID, dtype=np.float64))
    # Places of the grid lie in the middle of what is enlarged.
    size = (x.shape[1] * _GRID, x.shape[0] * _GRID)
    to_grid = np.array([[1 / _GRID, 0, 0], [0, 1 / _GRID, 0]])
    fine = cv2.warpAffine(_bent(bend, x, y).astype(np.float32), to_grid, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    at_y = np.ascontiguousarray(fine[: rows + 2 * above, :columns])
    at_x = np.broadcast_to(np.arange(columns, dtype=np.float32), at_y.shape)
    level = cv2.remap(small, np.ascontiguousarray(at_x), at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return LeveledPage(page=np.asarray(level, np.uint8), bend=bend, above=above, scale=scale)


def _bent(bend: Bend, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The y on the bent page of places that are at x, y once it is level."""
    found = y
    for _ in range(_TURNS):
        found = y + bend.drop(x, found)
    return found
