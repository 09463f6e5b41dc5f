"""A slide composed by libvips: nothing of it is there before it is written, but the picture that repeats and a map of the islands."""

from __future__ import annotations

import numpy as np
import pyvips
from numpy.typing import NDArray

from benchmarks.support.slides.pictures import islands

# Grey level of glass. Noise on it would be most of the file.
_GLASS = 245
# Pixels along each side of the squares that islands consist of: finer than tiles, so that tiles are cut by their borders.
_SQUARE = 64


def composed(edge: int, *, share: float, tissue: NDArray[np.uint8]) -> pyvips.Image:
    """Islands of this tissue, mirrored at each of its edges so that no seam shows, on edge × edge px of glass."""
    squares = islands(-(-edge // _SQUARE), share)
    # Each read once as a whole, then again and again in parts.
    is_tissue = pyvips.Image.new_from_array(np.where(squares, 255, 0).astype(np.uint8)).zoom(_SQUARE, _SQUARE).crop(0, 0, edge, edge)
    return is_tissue.ifthenelse(_everywhere(tissue, edge), [_GLASS] * 3).copy(interpretation="srgb")


def _everywhere(tissue: NDArray[np.uint8], edge: int) -> pyvips.Image:
    first = pyvips.Image.new_from_array(tissue, interpretation="srgb")
    row = first.join(first.fliphor(), "horizontal")
    mirrored = row.join(row.flipver(), "vertical").copy_memory()
    return mirrored.replicate(-(-edge // mirrored.width), -(-edge // mirrored.height)).crop(0, 0, edge, edge)
