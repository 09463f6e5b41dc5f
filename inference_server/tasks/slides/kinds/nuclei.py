"""Which blobs of haematoxylin are nuclear candidates: chosen from the slide itself, not by one constant.

The model puts out every local maximum of its response, at two scales. What a nucleus answers varies with stain, section and
scanner, and what texture answers varies with them; so does the size of nuclei. Four things are therefore taken from the slide:

- how much eosin leaks into haematoxylin, after Macenko 2009 (ISBI 1107): the eosin-most colours show it;
- the least response of a nucleus, as a share of what the strong maxima answer, or a valley in the number of responses above it;
- the scale, by neighbourhood: the one that answers more strongly, as Lindeberg 1998 (IJCV 30:79) selects it. Where the coarse one
  does so by little, nuclei of both sizes lie together, and those that it merged or passed over are taken from the fine one;
- which maxima are parts of one nucleus that is longer, or larger, than the scale.

All of it is computed from the same maxima in the same order, however the slide was cut into tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.kinds.maxima import Maxima, Neighbourhoods, by_portions, in_reading_order, joined, near, of_both
from inference_server.tasks.slides.masks import some_of
from inference_server.tasks.slides.outputs.rendering import smoothed
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
# Strengths of the two scales are compared over blocks of 64 grid pixels, smoothed by a Gaussian of this σ in blocks (48 µm).
_BLOCK = 64
_SIGMA_BLOCKS = 1.5
# Where both scales meet, a coarse candidate within so many grid pixels of a fine one is the same nucleus (3 µm).
_SAME = 6
# The coarse scale answers more strongly by little up to this ratio. A fine maximum is a nucleus of its own there when it lies farther than
# so many grid pixels from every candidate (5 µm: beyond the rim of a nucleus of 9 µm), and answers so many times the least.
_MIXED = 1.2
_APART = 10
_SURE = 1.5
# Fine candidates within so many grid pixels (3.5 µm) of a coarse one are parts of one nucleus, if it answers so many times as strongly as
# each of them: two nuclei that touch answer it less than themselves.
_PARTS = 7
_WHOLE = 1.1
# Beyond the ratio at which sizes are mixed nuclei are larger than the coarse scale, and the more so the greater it is. Those that it finds
# within 4.5 µm there, and 1.5 µm more for each tenth of the ratio, up to 9 µm, are of one nucleus.
_LEAST_REACH = 9
_REACH_BY_RATIO = 30
_MOST_REACH = 18
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
    # Whether the coarse scale found it.
    coarse: NDArray[np.bool_]
    # Least response of the fine and of the coarse scale, in OD.
    least_response: float
    least_coarse_response: float


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


def choose(fine: Maxima, coarse: Maxima, *, width: int, height: int, least: float, share: float) -> Nuclei:
    """The candidates among all maxima of tissue; width and height of the grid in pixels.

    A nucleus answers at least this `share` of what strong maxima do, and `least`, in OD: noise and compression stay below. Where strong
    maxima are far above it, so that nuclei make them, less than `least` is enough.
    """
    blocks = -(-height // _BLOCK), -(-width // _BLOCK)
    (of_fine, by_fine), (of_coarse, by_coarse) = of_both(
        fine, coarse, lambda each: (_least_response(each.response, least, share), _strength(each, blocks))
    )
    large = by_coarse > by_fine
    mixed = large & (by_coarse < _MIXED * by_fine)
    fine_in, coarse_in = _block(fine, blocks), _block(coarse, blocks)
    small_ones, whole_ones = _made_whole(
        fine.where((fine.response >= of_fine) & ~large[fine_in]), coarse.where((coarse.response >= of_coarse) & ~large[coarse_in])
    )
    large_ones = coarse.where((coarse.response >= of_coarse) & large[coarse_in])
    large_ones = _united(large_ones, _reach(by_fine, by_coarse)[_block(large_ones, blocks)])
    large_ones = joined(whole_ones, large_ones.where(~near(large_ones, joined(small_ones, whole_ones), _SAME)))
    others = fine.where((fine.response >= _SURE * of_fine) & mixed[fine_in])
    others = others.where(~near(others, joined(small_ones, large_ones), _APART))
    found, is_coarse = _together(joined(small_ones, others), large_ones)
    return Nuclei(found=found, coarse=is_coarse, least_response=of_fine, least_coarse_response=of_coarse)


def _unmixing() -> NDArray[np.float64]:
    """RGB densities → haematoxylin and eosin, 3 × 2."""
    residual = np.cross(HAEMATOXYLIN, EOSIN)
    unmixing: NDArray[np.float64] = np.linalg.inv(np.array([HAEMATOXYLIN, EOSIN, residual / np.linalg.norm(residual)]))[:, :2]
    return unmixing


def _least_response(response: NDArray[np.float32], least: float, share: float) -> float:
    """A share of the mean response, weighted by its square: nuclei outweigh texture even where they are few.

    Never less than `least`, or than less where the mean is so far above it that nuclei make it, however pale: noise alone does not.
    """
    values = response.astype(np.float64)
    weight = float((values**2).sum())
    if not weight:
        return least
    strong = float((values**3).sum()) / weight
    floor = least * min(1.0, _CLEAR * (least / strong) ** 2)
    return max(_valley(values[values > floor] / strong, share) * strong, floor)


def _valley(responses: NDArray[np.float64], share: float) -> float:
    """The share, or one above it where far fewer answer, and more do further up: specks or texture lie below, nuclei above."""
    if not share:
        return share
    bins = np.floor(np.log(responses / share) / _BIN).astype(np.int64) + _BINS_BELOW
    counts = np.bincount(bins[(bins >= 0) & (bins < _BINS)], minlength=_BINS)
    reach = np.arange(-3 * _SIGMA_BINS, 3 * _SIGMA_BINS + 1)
    density = np.convolve(counts, np.exp(-0.5 * (reach / _SIGMA_BINS) ** 2), mode="same")[_BINS_BELOW:]
    lowest = int(density[:_VALLEY_BINS].argmin())
    if density[lowest] < min(_DEEP * density[0], density[lowest:].max()):
        return share * float(np.exp(lowest * _BIN))
    return share


def _strength(maxima: Maxima, blocks: tuple[int, int]) -> NDArray[np.float64]:
    """Mean response around each block, weighted by itself; 0 where there is none."""
    rows, columns = _block(maxima, blocks)
    place, values = rows.astype(np.int64) * blocks[1] + columns, maxima.response.astype(np.float64)
    # Of no values there are whole numbers.
    sums = (np.bincount(place, each, blocks[0] * blocks[1]).astype(np.float64, copy=False) for each in (values, values**2))
    total, squares = (each.reshape(blocks) for each in sums)
    weight = smoothed(total, _SIGMA_BLOCKS)
    strength: NDArray[np.float64] = np.divide(smoothed(squares, _SIGMA_BLOCKS), weight, out=np.zeros(blocks), where=weight > 0)
    return strength


def _block(maxima: Maxima, blocks: tuple[int, int]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return np.minimum(maxima.y // _BLOCK, blocks[0] - 1), np.minimum(maxima.x // _BLOCK, blocks[1] - 1)


def _reach(by_fine: NDArray[np.float64], by_coarse: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grid pixels within which all coarse candidates of a block are one nucleus; 0 where nuclei are no larger than the coarse scale."""
    ratio = np.divide(by_coarse, by_fine, out=np.full(by_fine.shape, np.inf), where=by_fine > 0)
    return np.where(ratio >= _MIXED, np.clip(_LEAST_REACH + _REACH_BY_RATIO * (ratio - _MIXED), 0, _MOST_REACH), 0.0)


def _made_whole(parts: Maxima, wholes: Maxima) -> tuple[Maxima, Maxima]:
    """Of fine and coarse candidates those that stay: a coarse one that answers more strongly than several fine ones takes their place."""
    around = Neighbourhoods(parts, _PARTS)
    kept, gone = np.empty(len(wholes.x), np.bool_), np.zeros(len(parts.x), np.bool_)

    def judge(some: slice) -> None:
        these = wholes.where(some)
        pairs = list(around.pairs(these))
        count, strongest = np.zeros(len(these.x), np.int32), np.zeros(len(these.x), np.float32)
        for whole, part in pairs:
            count[whole] += 1
            strongest[whole] = np.maximum(strongest[whole], parts.response[part])
        kept[some] = (count > 1) & (these.response >= _WHOLE * strongest)
        for whole, part in pairs:
            gone[part[kept[some][whole]]] = True

    by_portions(wholes, judge)
    return parts.where(~gone), wholes.where(kept)


def _united(coarse: Maxima, reach: NDArray[np.float64]) -> Maxima:
    """The strongest of those within each one's reach, in the middle of them all: the rim of a large nucleus answers in several places."""
    x, y, weight = np.zeros((3, len(coarse.x)))
    kept = np.ones(len(coarse.x), np.bool_)
    around = Neighbourhoods(coarse, _MOST_REACH)

    def unite(some: slice) -> None:
        for number, other in around.pairs(coarse.where(some)):
            one = number + some.start
            apart = np.hypot(coarse.x[one] - coarse.x[other], coarse.y[one] - coarse.y[other])
            one, other = (each[apart <= reach[one]] for each in (one, other))
            share = coarse.response[other].astype(np.float64)
            x[one] += share * coarse.x[other]
            y[one] += share * coarse.y[other]
            weight[one] += share
            is_after = (coarse.response[other] == coarse.response[one]) & (other < one)
            kept[one[(coarse.response[other] > coarse.response[one]) | is_after]] = False

    by_portions(coarse, unite)
    middle = [np.rint(each[kept] / weight[kept]).astype(np.int32) for each in (x, y)]
    return Maxima(x=middle[0], y=middle[1], response=coarse.response[kept])


def _together(small: Maxima, large: Maxima) -> tuple[Maxima, NDArray[np.bool_]]:
    both = joined(small, large)
    # A few runs, each in order already, which is what a stable sort makes use of.
    order = np.argsort(in_reading_order(both.x, both.y), kind="stable")
    return both.where(order), order >= len(small.x)
