"""Boxes of words and lines, as formats without polygons have them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from inference_server.tasks.documents.values import Quad


@dataclass(frozen=True, kw_only=True)
class Box:
    """Whole pixels that hold a quad, on the page."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top


def box_of(quad: Quad, width: int, height: int) -> Box:
    """The bounds of a quad, within a page of `width` × `height`."""
    # Of so few numbers Python's own functions are many times faster than numpy's.
    across, down = zip(*quad.tolist(), strict=True)
    return Box(
        left=min(max(math.floor(min(across)), 0), width),
        top=min(max(math.floor(min(down)), 0), height),
        right=min(max(math.ceil(max(across)), 0), width),
        bottom=min(max(math.ceil(max(down)), 0), height),
    )


def angle_of(quad: Quad) -> float:
    """How far the text is turned, in degrees, counter-clockwise from level: 90 reads upwards. -180 to 180."""
    along = quad[1] + quad[2] - quad[0] - quad[3]
    return -math.degrees(math.atan2(float(along[1]), float(along[0])))


def box_around(quads: Iterable[Quad], width: int, height: int) -> Box:
    """The bounds of at least one quad."""
    return box_of(np.concatenate(list(quads)), width, height)
