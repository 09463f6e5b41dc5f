"""Which blobs of haematoxylin are nuclear candidates: chosen from the slide itself, not by one constant.

The model puts out every local maximum of its response, at two scales. What a nucleus answers varies with stain, section and
scanner, and what texture answers varies with them; so does the size of nuclei. Three things are therefore taken from the slide:

- how much eosin leaks into haematoxylin, after Macenko 2009 (ISBI 1107): the eosin-most colours show it;
- the least response of a nucleus, as a share of what the strong maxima answer;
- the scale, by neighbourhood: the one that answers more strongly, as Lindeberg 1998 (IJCV 30:79) selects it. Where the coarse one
  does so by little, nuclei of both sizes lie together, and those that it merged or passed over are taken from the fine one.

All of it is computed from the same maxima in the same order, however the slide was cut into tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, kw_only=True)
class Maxima:
    """Local maxima of one scale's response, in reading order."""

    # Grid pixels from the slide's corner.
    x: NDArray[np.int32]
    y: NDArray[np.int32]
    # OD.
    response: NDArray[np.float32]

    def where(self, kept: NDArray[np.bool_] | NDArray[np.int64]) -> Maxima:
        """Some of them, or all in another order."""
        return Maxima(x=self.x[kept], y=self.y[kept], response=self.response[kept])


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

    A nucleus answers at least this `share` of what strong maxima do, and never less than `least`, in OD: noise and compression stay below.
    """
    of_fine, of_coarse = (_least_response(each.response, least, share) for each in (fine, coarse))
    blocks = -(-height // _BLOCK), -(-width // _BLOCK)
    by_fine, by_coarse = _strength(fine, blocks), _strength(coarse, blocks)
    large = by_coarse > by_fine
    mixed = large & (by_coarse < _MIXED * by_fine)
    small_ones = fine.where((fine.response >= of_fine) & ~large[_block(fine, blocks)])
    large_ones = coarse.where((coarse.response >= of_coarse) & large[_block(coarse, blocks)])
    large_ones = large_ones.where(~_near(large_ones, small_ones, _SAME))
    others = fine.where((fine.response >= _SURE * of_fine) & mixed[_block(fine, blocks)])
    others = others.where(~_near(others, _joined(small_ones, large_ones), _APART))
    found, is_coarse = _together(_joined(small_ones, others), large_ones)
    return Nuclei(found=found, coarse=is_coarse, least_response=of_fine, least_coarse_response=of_coarse)


def in_reading_order(x: NDArray[np.int32], y: NDArray[np.int32]) -> NDArray[np.int64]:
    """A number for each place, to sort by: many times as fast as by two keys."""
    return y.astype(np.int64) * 2**31 + x


def _unmixing() -> NDArray[np.float64]:
    """RGB densities → haematoxylin and eosin, 3 × 2."""
    residual = np.cross(HAEMATOXYLIN, EOSIN)
    unmixing: NDArray[np.float64] = np.linalg.inv(np.array([HAEMATOXYLIN, EOSIN, residual / np.linalg.norm(residual)]))[:, :2]
    return unmixing


def _least_response(response: NDArray[np.float32], least: float, share: float) -> float:
    """A share of the mean response, weighted by its square: nuclei outweigh texture even where they are few."""
    values = response.astype(np.float64)
    weight = float((values**2).sum())
    return max(share * float((values**3).sum()) / weight, least) if weight else least


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


def _near(these: Maxima, those: Maxima, reach: int) -> NDArray[np.bool_]:
    """Which of these have one of those within so many grid pixels: sought in squares of the reach, and the eight around each."""
    near = np.zeros(len(these.x), np.bool_)
    if not len(near):
        return near
    key = in_reading_order(those.x // reach, those.y // reach)
    order = np.argsort(key, kind="stable")
    key, x, y = key[order], those.x[order], those.y[order]
    for down in (-1, 0, 1):
        row = (these.y.astype(np.int64) // reach + down) * 2**31
        # A row's three neighbouring squares follow one another among the keys; each holds a few maxima at most.
        first = np.searchsorted(key, row + these.x // reach - 1)
        last = np.searchsorted(key, row + these.x // reach + 1, side="right")
        for step in range(int((last - first).max(initial=0))):
            index = np.minimum(first + step, max(len(key) - 1, 0))
            close = (np.abs(x[index] - these.x) <= reach) & (np.abs(y[index] - these.y) <= reach)
            near |= (first + step < last) & close
    return near


def _joined(these: Maxima, those: Maxima) -> Maxima:
    """Those after these."""
    x, y, response = (np.concatenate([getattr(each, name) for each in (these, those)]) for name in ("x", "y", "response"))
    return Maxima(x=x, y=y, response=response)


def _together(small: Maxima, large: Maxima) -> tuple[Maxima, NDArray[np.bool_]]:
    both = _joined(small, large)
    # A few runs, each in order already, which is what a stable sort makes use of.
    order = np.argsort(in_reading_order(both.x, both.y), kind="stable")
    return both.where(order), order >= len(small.x)
