"""Which blobs of haematoxylin are nuclear candidates: chosen from the slide itself, not by one constant.

The model puts out every local maximum of its response, at several scales. What a nucleus answers varies with stain, section and
scanner, and what texture answers varies with them; so does the size of nuclei. Three things are therefore taken from the slide:

- how much eosin leaks into haematoxylin, after Macenko 2009 (ISBI 1107): the eosin-most colours show it;
- the scale, by candidate and by neighbourhood, as Lindeberg 1998 (IJCV 30:79) selects it: of maxima that lie within one nucleus,
  whatever their scales, the one that answers most strongly is taken, and what a scale answers counts the more the more strongly it
  answers around there;
- the least response of a nucleus, as a share of what the strong maxima answer, or a valley in the number of responses above it.

All of it is computed from the same maxima in the same order, however the slide was cut into tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.kinds.maxima import Maxima, in_reading_order, joined, of_all, strongest
from inference_server.tasks.slides.outputs.rendering import smoothed
from inference_server.tasks.slides.tissue.cells import some_of, stripes
from inference_server.tasks.slides.values import Pixels

# The model's own numbers: QuPath's default vectors, the steps and the bounds of the leak, and the pixels of a maximum's place.
HAEMATOXYLIN = (0.65111, 0.70119, 0.29049)
EOSIN = (0.2159, 0.8012, 0.5581)
LEAK_STEP = 1 / 64
MOST_LEAK = 0.5
POOLED = 2
# Colours with less density in all are glass, and those with less eosin tell nothing of it.
_LEAST_DENSITY = 0.15
_LEAST_EOSIN = 0.05
# Macenko's robust extreme, in percent, and the colours that it needs.
_EXTREME_PERCENT = 1.0
_FEWEST_COLOURS = 100
# Strengths of the scales are compared over blocks of 64 grid pixels, smoothed by a Gaussian of this σ in blocks (48 µm).
_BLOCK = 64
_SIGMA_BLOCKS = 1.5
# Rows of blocks that are summed up at once, and maxima that are weighed at once: a large slide has millions, and meanwhile each takes
# tens of bytes.
_BLOCK_ROWS, _PORTION = 16, 2**16
# A scale's answer counts as the ratio of its strength to that of the strongest scale around, to this power: nuclei that lie together are
# alike, and a scale that few of them suit finds their rims, their chromatin, or several as one.
_ALIKE = 1.3
# And as its σ over 2 µm at 0.5 µm/px to this power: what is within a nucleus answers finer scales.
_WHOLE = 0.5
_USUAL_SIGMA = 4.0
# Maxima nearer than so many radii of the larger one's blob, which are σ√2, are of one nucleus.
_ONE_NUCLEUS = 1.6
# What is never answered less than holds up to a mean of the root of this times it (0.078 OD for 0.045), and falls with the mean's square.
_CLEAR = 3.0
# A valley in the number of responses is sought up to 1.6 times the share (25 steps of 2 %), among numbers that are smoothed by a
# Gaussian of σ 18 %; there must be fewer than so many times those at the share.
_BIN = 0.02
_BINS, _BINS_BELOW, _VALLEY_BINS = 160, 40, 25
_SIGMA_BINS = 9
_DEEP = 0.7


@dataclass(frozen=True, kw_only=True)
class Nuclei:
    """The candidates of a slide, in reading order, and what was chosen to find them."""

    found: Maxima
    # The scale that found each, by its place among those of the manifest.
    scale: NDArray[np.int8]
    # Of a scale of 2 µm where it is the strongest, in OD.
    least_response: float


def eosin_leak(colours: Pixels) -> float:
    """OD of haematoxylin that each OD of eosin shows on a slide, in steps of 1/64; 0 where too little is stained.

    `colours`: RGB of tissue, […, 3], pixels or means of cells.
    """
    flat = some_of(colours.reshape(-1, 3))
    density = -np.log10(np.maximum(flat / 255, 1e-6)) @ _unmixing()
    stained = (density.sum(axis=1) > _LEAST_DENSITY) & (density[:, 1] > _LEAST_EOSIN)
    if np.count_nonzero(stained) < _FEWEST_COLOURS:
        return 0.0
    extreme = float(np.percentile(density[stained, 0] / density[stained, 1], _EXTREME_PERCENT))
    return float(np.clip(round(extreme / LEAK_STEP) * LEAK_STEP, -MOST_LEAK, MOST_LEAK))


def choose(maxima: Sequence[Maxima], sigmas: Sequence[float], *, width: int, height: int, least: float, share: float) -> Nuclei:
    """The candidates among all maxima of tissue, by scale; each one's σ, width and height in grid pixels.

    A nucleus answers at least this `share` of what strong maxima do, and `least`, in OD: noise and compression stay below. Where strong
    maxima are far above it, so that nuclei make them, less than `least` is enough.
    """
    blocks = -(-height // _BLOCK), -(-width // _BLOCK)
    by_scale = of_all(maxima, lambda each: _strength(each, blocks))
    most = np.maximum.reduce(by_scale)
    scores = [
        _score(each, (sigma / _USUAL_SIGMA) ** _WHOLE * np.divide(strength, most, out=np.zeros(blocks), where=most > 0) ** _ALIKE)
        for each, sigma, strength in zip(maxima, sigmas, by_scale, strict=True)
    ]
    # Of a large slide 5 MB each.
    del by_scale, most
    enough = _least_response(scores, least, share)
    # Texture answers finer scales: they must answer so many times more as they are finer than the usual one.
    strong = [score >= enough * max(1.0, _USUAL_SIGMA / sigma) for score, sigma in zip(scores, sigmas, strict=True)]
    found = [each.where(those) for each, those in zip(maxima, strong, strict=True)]
    # Whoever called may hold them no longer: of a large slide they are tens of megabytes.
    del maxima
    scores = [score[those] for score, those in zip(scores, strong, strict=True)]
    del strong
    kept = strongest(found, scores, [_ONE_NUCLEUS * 2**0.5 * sigma for sigma in sigmas])
    together = joined(*(each.where(those) for each, those in zip(found, kept, strict=True)))
    del found, scores
    scale = np.repeat(np.arange(len(kept), dtype=np.int8), [np.count_nonzero(those) for those in kept])
    # A few runs, each in order already, which is what a stable sort makes use of.
    order = np.argsort(in_reading_order(together.x, together.y), kind="stable")
    return Nuclei(found=together.where(order), scale=scale[order], least_response=enough)


def _unmixing() -> NDArray[np.float64]:
    """RGB densities → haematoxylin and eosin, 3 × 2."""
    residual = np.cross(HAEMATOXYLIN, EOSIN)
    unmixing: NDArray[np.float64] = np.linalg.inv(np.array([HAEMATOXYLIN, EOSIN, residual / np.linalg.norm(residual)]))[:, :2]
    return unmixing


def _least_response(scores: Sequence[NDArray[np.float32]], least: float, share: float) -> float:
    """A share of the mean score, weighted by its square: nuclei outweigh texture even where they are few.

    Never less than `least`, or than less where the mean is so far above it that nuclei make it, however pale: noise alone does not.
    """
    squares, cubes = (sum(_sum_of_powers(score, power) for score in scores) for power in (2, 3))
    if not squares:
        return least
    strong = cubes / squares
    floor = least * min(1.0, _CLEAR * (least / strong) ** 2)
    if share:
        parts = [score[some] for score in scores for some in stripes(len(score), _PORTION)]
        share = _valley(np.sum([_counts(part[part > floor].astype(np.float64) / strong, share) for part in parts], axis=0), share)
    return max(share * strong, floor)


def _sum_of_powers(score: NDArray[np.float32], power: int) -> float:
    powers = score.astype(np.float64)
    powers **= power
    return float(powers.sum())


def _counts(responses: NDArray[np.float64], share: float) -> NDArray[np.int64]:
    """How many there are in each bin about a share."""
    bins = np.floor(np.log(responses / share) / _BIN).astype(np.int64) + _BINS_BELOW
    return np.bincount(bins[(bins >= 0) & (bins < _BINS)], minlength=_BINS)


def _valley(counts: NDArray[np.int64], share: float) -> float:
    """The share, or one above it where far fewer answer, and more do further up: specks or texture lie below, nuclei above."""
    reach = np.arange(-3 * _SIGMA_BINS, 3 * _SIGMA_BINS + 1)
    density = np.convolve(counts, np.exp(-0.5 * (reach / _SIGMA_BINS) ** 2), mode="same")[_BINS_BELOW:]
    lowest = int(density[:_VALLEY_BINS].argmin())
    if density[lowest] < min(_DEEP * density[0], density[lowest:].max()):
        return share * float(np.exp(lowest * _BIN))
    return share


def _strength(maxima: Maxima, blocks: tuple[int, int]) -> NDArray[np.float64]:
    """Mean response around each block, weighted by its square; 0 where there is none."""
    sums = np.zeros((2, *blocks))
    for rows in stripes(blocks[0], _BLOCK_ROWS):
        # All of a block at once, one after another: sums of parts would differ in their last bits.
        some = maxima.where(maxima.between(rows.start * _BLOCK, rows.stop * _BLOCK if rows.stop < blocks[0] else None))
        row, column = _block(some, blocks)
        place, values = (row - rows.start) * blocks[1] + column, some.response.astype(np.float64)
        for each, power in zip(sums, (2, 3), strict=True):
            each[rows] = np.bincount(place, values**power, (rows.stop - rows.start) * blocks[1]).reshape(-1, blocks[1])
    for each in sums:
        each[:] = smoothed(each, _SIGMA_BLOCKS)
    squares, cubes = sums
    strength: NDArray[np.float64] = np.divide(cubes, squares, out=np.zeros(blocks), where=squares > 0)
    return strength


def _score(maxima: Maxima, weight: NDArray[np.float64]) -> NDArray[np.float32]:
    """What each answers by the weight of its scale in its block."""
    score, weights = np.empty_like(maxima.response), weight.astype(np.float32)
    for places in stripes(len(score), _PORTION):
        some = maxima.where(places)
        score[places] = some.response * weights[_block(some, weight.shape)]
    return score


def _block(maxima: Maxima, blocks: tuple[int, ...]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return np.minimum(maxima.y // _BLOCK, blocks[0] - 1), np.minimum(maxima.x // _BLOCK, blocks[1] - 1)
