"""Pictures of more than eight bits a pixel become such of eight, by the range of what they hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EIGHT_BITS, _SIXTEEN_BITS = 255, 65_535
# So many pixels, and this share of all, may lie outside the range: dead pixels of a camera. A letter has hundreds.
_OUTLIERS, _OUTLIER_SHARE = 16, 1e-5


def eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Whole numbers become shares of the bits that hold them, so that 10 bits in a file of 16 are seen; others shares of their range.

    `values`: [H, W]. What is no number is taken for ground: the median of all.
    """
    levels = np.asarray(values, np.float32)
    finite = np.isfinite(levels)
    if not finite.all():
        levels = np.where(finite, levels, np.float32(np.median(levels[finite])) if finite.any() else np.float32(0))
    darkest, lightest = _range_of(levels)
    if np.issubdtype(values.dtype, np.integer) and darkest >= 0 and lightest <= _SIXTEEN_BITS:
        darkest, lightest = 0.0, float(max(_EIGHT_BITS, 2 ** int(lightest).bit_length() - 1))
    if lightest <= darkest:
        # Nothing is on it.
        return np.full(levels.shape, _EIGHT_BITS, np.uint8)
    return ((levels - darkest) * (_EIGHT_BITS / (lightest - darkest))).clip(0, _EIGHT_BITS).astype(np.uint8)


def _range_of(levels: NDArray[np.float32]) -> tuple[float, float]:
    flat = levels.ravel()
    aside = min(_OUTLIERS + int(_OUTLIER_SHARE * flat.size), (flat.size - 1) // 100)
    ordered = np.partition(flat, (aside, flat.size - 1 - aside))
    return float(ordered[aside]), float(ordered[-1 - aside])
