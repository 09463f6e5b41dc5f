"""Pictures of more than eight bits a pixel become such of eight, by the range of what they hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_EIGHT_BITS, _SIXTEEN_BITS = 255, 65_535
# So many pixels, and this share of all, may lie outside the range: dead pixels of a camera. A letter has hundreds.
_OUTLIERS, _OUTLIER_SHARE = 16, 1e-5
# Pixels that are worked on at a time: a page may have a hundred million.
_BAND = 1024 * 1024


def eight_bits(values: NDArray[np.generic], *, white_is_zero: bool = False) -> NDArray[np.uint8]:
    """Whole numbers become shares of the bits that hold them, so that 10 bits in a file of 16 are seen; others shares of their range.

    `values`: [H, W]. What is no number is taken for ground: the median of all, or of pixels that stand for all. `white_is_zero`: the
    higher, the darker.
    """
    darkest, lightest = _range_of(values)
    if np.issubdtype(values.dtype, np.integer) and darkest >= 0 and lightest <= _SIXTEEN_BITS:
        darkest, lightest = 0.0, float(max(_EIGHT_BITS, 2 ** int(lightest).bit_length() - 1))
    if lightest <= darkest:
        # Nothing is on it.
        return np.full(values.shape, _EIGHT_BITS, np.uint8)
    out = np.empty(values.size, np.uint8)
    ground: np.float32 | None = None
    for start, levels in _bands(values):
        if not (sound := np.isfinite(levels)).all():
            ground = _ground_of(values) if ground is None else ground
            levels[~sound] = ground
        levels -= np.float32(darkest)
        levels *= np.float32(_EIGHT_BITS / (lightest - darkest))
        out[start : start + levels.size] = levels.clip(0, _EIGHT_BITS, out=levels)
    if white_is_zero:
        np.subtract(_EIGHT_BITS, out, out=out)
    return out.reshape(values.shape)


def _bands(values: NDArray[np.generic]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Where each begins, and a copy of it."""
    flat = values.reshape(-1)
    return ((start, flat[start : start + _BAND].astype(np.float32)) for start in range(0, flat.size, _BAND))


def _range_of(values: NDArray[np.generic]) -> tuple[float, float]:
    """The darkest and the lightest level behind the outliers: of each band only what may be among those of the page is kept."""
    aside = min(_OUTLIERS + int(_OUTLIER_SHARE * values.size), (values.size - 1) // 100)
    lowest = highest = np.empty(0, np.float32)
    for _, band in _bands(values):
        levels = band if (sound := np.isfinite(band)).all() else band[sound]
        if levels.size > 2 * aside + 2:
            levels.partition((aside, levels.size - 1 - aside))
        else:
            levels.sort()
        lowest = np.sort(np.concatenate([lowest, levels[: aside + 1]]))[: aside + 1]
        highest = np.sort(np.concatenate([highest, levels[-aside - 1 :]]))[-aside - 1 :]
    return (float(lowest[-1]), float(highest[0])) if lowest.size else (0.0, 0.0)


def _ground_of(values: NDArray[np.generic]) -> np.float32:
    some = values.reshape(-1)[:: max(1, values.size // _BAND)].astype(np.float32)
    sound = some[np.isfinite(some)]
    return np.float32(np.median(sound) if sound.size else 0)
