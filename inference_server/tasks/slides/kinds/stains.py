"""Brings the colours of H&E to those of a reference, by the stains' directions (Macenko) or the colours' statistics (Reinhard).

Every sum is made by numpy alone, in a fixed order, so that a tile comes out the same whatever its batch and however many threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.manifest import StainManifest
from inference_server.tasks.slides.values import Pixels

# RGB to RGB, of any shape that ends with the channels.
Normaliser = Callable[[Pixels], Pixels]

# Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009: light, least density of a stained
# pixel (natural logarithm), and the percentile taken for the extremes. The reference's stains and their 99th percentiles are those of
# Veta's implementation, from which the usual ones took them.
_LIGHT = 240.0
_LEAST_DENSITY = 0.15
_PERCENTILE = 1.0
_REFERENCE_STAINS = ((0.5626, 0.2159), (0.7201, 0.8012), (0.4062, 0.5581))
_REFERENCE_STRENGTHS = (1.9705, 1.0308)
# Reinhard et al., "Color transfer between images", IEEE CG&A 21:34, 2001, with Ruderman's lαβ. The reference's means and deviations are
# HistomicsTK's, of the slide TCGA-A2-A3XS-DX1 (Amgad et al. 2019).
_RGB_TO_LMS = np.array(((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444)))
_LMS_TO_LAB = np.diag(1 / np.sqrt((3.0, 6.0, 2.0))) @ np.array(((1.0, 1.0, 1.0), (1.0, 1.0, -2.0), (1.0, -1.0, 0.0)))
_REFERENCE_MEANS = (8.74108109, -0.12440419, 0.0444982)
_REFERENCE_DEVIATIONS = (0.6135447, 0.10989545, 0.0286032)
# Most of a cone's light, far beyond that of white, 5.5.
_MOST_LOGARITHM = 30.0
# Fewer stained pixels say nothing of the stains.
_LEAST_PIXELS = 256
# Between the two stains, in radians; those of the reference are 0.46 apart.
_LEAST_ANGLE = 0.1

_DENSITIES = -np.log((np.arange(256) + 1) / _LIGHT)


def normaliser(manifest: StainManifest, sample: Pixels | None = None) -> Normaliser:
    """For all tiles from a sample of the slide, count × RGB; without a sample, for each tile from itself.

    Pixels with too little stain to tell from are left as they are.
    """
    fit = _macenko if manifest.method == "macenko" else _reinhard
    if sample is not None:
        return fit(sample.reshape(-1, 3)) or _unchanged
    return lambda tile: (fit(tile.reshape(-1, 3)) or _unchanged)(tile)


def _unchanged(pixels: Pixels) -> Pixels:
    return pixels


def _macenko(sample: Pixels) -> Normaliser | None:
    density = _DENSITIES[sample]
    stained = density[(density >= _LEAST_DENSITY).all(axis=1)]
    stains = _stains(stained) if len(stained) >= _LEAST_PIXELS else None
    if stains is None:
        return None
    inverse = np.linalg.pinv(stains)
    # Of all but glass, of which there may be much or little.
    tissue = density[(density >= _LEAST_DENSITY).any(axis=1)]
    strengths = [np.percentile(_product(inverse[row], tissue), 100 - _PERCENTILE) for row in range(2)]
    if min(strengths) <= 0:
        return None
    # From densities to densities: unmixed, each stain as strong as the reference's, mixed again.
    matrix = np.array(_REFERENCE_STAINS) @ np.diag(np.array(_REFERENCE_STRENGTHS) / strengths) @ inverse

    def normalise(pixels: Pixels) -> Pixels:
        found = _DENSITIES.astype(np.float32)[pixels]
        channels = [_LIGHT * np.exp(-_product(matrix[row].astype(np.float32), found)) for row in range(3)]
        return _bytes(channels)

    return normalise


def _stains(stained: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Haematoxylin and eosin as columns: the extreme directions of the densities in the plane in which they vary most."""
    centred = stained - stained.mean(axis=0)
    covariance = np.array([[(centred[:, row] * centred[:, column]).mean() for column in range(3)] for row in range(3)])
    # A direction may come with either sign; densities lie along the positive one.
    _, directions = np.linalg.eigh(covariance)
    plane = directions[:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    angles = np.arctan2(_product(plane[:, 1], stained), _product(plane[:, 0], stained))
    extremes = np.percentile(angles, (_PERCENTILE, 100 - _PERCENTILE))
    first, second = (plane[:, 0] * np.cos(angle) + plane[:, 1] * np.sin(angle) for angle in extremes)
    # One stain alone has no second direction: what is found then is noise and rounding.
    if np.dot(first, second) > np.cos(_LEAST_ANGLE):
        return None
    return np.stack((first, second) if first[0] > second[0] else (second, first), axis=1)


def _reinhard(sample: Pixels) -> Normaliser | None:
    density = _DENSITIES[sample]
    stained = sample[(density >= _LEAST_DENSITY).any(axis=1)]
    if len(stained) < _LEAST_PIXELS:
        return None
    lab = _lab(stained, np.float64)
    means = [channel.mean() for channel in lab]
    deviations = [channel.std() for channel in lab]
    if min(deviations) < 1e-6:
        return None
    gains = [reference / own for reference, own in zip(_REFERENCE_DEVIATIONS, deviations, strict=True)]
    to_lms, to_rgb = np.linalg.inv(_LMS_TO_LAB).astype(np.float32), np.linalg.inv(_RGB_TO_LMS).astype(np.float32)

    def normalise(pixels: Pixels) -> Pixels:
        moved = [
            (channel - np.float32(mean)) * np.float32(gain) + np.float32(reference)
            for channel, mean, gain, reference in zip(_lab(pixels, np.float32), means, gains, _REFERENCE_MEANS, strict=True)
        ]
        lab: NDArray[np.float32] = np.stack(moved, axis=-1).astype(np.float32)
        # Of a sample of nearly one colour the others lie far beyond what light can be, and beyond what numbers can.
        lms = np.stack([np.exp(np.clip(_product(row, lab), -_MOST_LOGARITHM, _MOST_LOGARITHM)) for row in to_lms], axis=-1)
        return _bytes([_product(row, lms) for row in to_rgb])

    return normalise


def _lab(pixels: Pixels, dtype: type[np.floating]) -> list[NDArray[np.floating]]:
    """Ruderman's l, α and β of RGB from 0 to 255, by natural logarithms; black counts as 1."""
    rgb = np.maximum(pixels, 1).astype(dtype)
    logarithms = [np.log(_product(row.astype(dtype), rgb)) for row in _RGB_TO_LMS]
    lms = np.stack(logarithms, axis=-1, dtype=dtype)
    return [_product(row.astype(dtype), lms) for row in _LMS_TO_LAB]


def _product(row: NDArray[np.floating], values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Sum over the last axis, term by term: a library's product may add in another order for another size."""
    total = np.asarray(row[0] * values[..., 0])
    for index in range(1, len(row)):
        total += row[index] * values[..., index]
    return total


def _bytes(channels: Sequence[NDArray[np.floating]]) -> Pixels:
    return np.clip(np.rint(np.stack(channels, axis=-1)), 0, 255).astype(np.uint8)
