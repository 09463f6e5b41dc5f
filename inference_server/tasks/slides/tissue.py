"""Where tissue is, on cells of about 8 µm.

A cell is tissue when it is denser than glass: its mean optical density exceeds a threshold that Otsu's method (IEEE Trans SMC 9:62,
1979) finds between fixed bounds, and it has the colour of no ink, shadow or glue. The bounds make a slide that is all tissue, or all
glass, come out right, where Otsu's method alone would split it in two. Pale tissue that hangs together with such cells is tissue too,
by two thresholds as Canny 1986 (IEEE PAMI 8:679) follows edges. Density is measured from the slide's own white, so that a grey or
yellowish background is none.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.grid import Grid, read_cells
from inference_server.tasks.slides.masks import Mask, grown, majority
from inference_server.tasks.slides.quality import Densities, folds, pen_marks
from inference_server.tasks.slides.readers.regions import WHITE, Regions
from inference_server.tasks.slides.values import Pixels, SlideFacts

# Bounds of the threshold, in mean OD over R, G, B: below, dust and uneven light; above, pale stroma would be lost.
LEAST_THRESHOLD = 0.04
MOST_THRESHOLD = 0.07
# Least difference between the densest and the clearest channel, in OD, and over the mean: shadows, pencil and the edge of a coverslip
# are grey, stains are not.
LEAST_COLOUR = 0.025
_LEAST_SPREAD = 0.2
# Glue beyond the coverslip is pale and absorbs blue most: clearer than this in the mean, and denser in blue than in green so many times.
_GLUE_DENSITY, _GLUE_RATIO = 0.12, 1.3
# Pale tissue beside denser: least mean density and difference, and green at least so much of the densest channel.
PALE_THRESHOLD = 0.02
_PALE_COLOUR, _PALE_GREEN = 0.015, 0.9
# A slide's white is sought among cells at least this bright in all channels; else it is taken as 245.
_GLASS = 215
_DEFAULT_WHITE = 245.0
# A cell takes the majority of the 5 × 5 cells around it (40 µm), which drops specks and closes pinholes.
_MAJORITY = 5
# Level pixels read at once, along each axis, while the slide is scanned.
_SCAN_PIXELS = 2048
_BINS = 256


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """The mask of a slide."""

    grid: Grid
    # Rows × columns of the grid.
    mask: Mask
    # Share of each cell that lies on the slide; below 1 only at the right and bottom edges.
    coverage: NDArray[np.float64]
    # Mean OD over R, G, B above which a cell is tissue.
    threshold: float
    # Cells with ink on them, which are no tissue, and cells of tissue in more than one layer.
    pen: Mask
    folded: Mask

    @property
    def area_mm2(self) -> float:
        """Area of tissue."""
        return self.mm2_of(self.mask)

    def mm2_of(self, mask: Mask) -> float:
        """Area of some cells."""
        return float(self.coverage[mask].sum()) * self.grid.cell_mm2

    @property
    def share(self) -> float:
        """Share of the slide that is tissue."""
        return float(self.coverage[self.mask].sum() / self.coverage.sum())


async def scan(regions: Regions, grid: Grid) -> Pixels:
    """Mean colours of all cells of a coarse grid, read block by block."""
    cells = np.empty((grid.height, grid.width, 3), np.uint8)
    block = max(int(_SCAN_PIXELS / max(grid.step_x, grid.step_y)), 1)
    for y in range(0, grid.height, block):
        for x in range(0, grid.width, block):
            height, width = min(block, grid.height - y), min(block, grid.width - x)
            cells[y : y + height, x : x + width] = await read_cells(regions, grid, x, y, width, height)
    return cells


async def find_tissue(facts: SlideFacts, grid: Grid, cells: Pixels) -> Tissue:
    """The mask from the mean colours of cells of about 8 µm."""
    coverage = _coverage(facts.height, grid.scale_y, grid.height)[:, None] * _coverage(facts.width, grid.scale_x, grid.width)[None, :]
    density = await asyncio.to_thread(lambda: _density(_without_margin(cells, coverage)))
    pen = await asyncio.to_thread(pen_marks, density)
    mask, threshold = await asyncio.to_thread(_mask, density, pen)
    folded = await asyncio.to_thread(folds, density, mask)
    return Tissue(grid=grid, mask=mask, coverage=coverage, threshold=threshold, pen=pen, folded=folded)


def _without_margin(cells: Pixels, coverage: NDArray[np.float64]) -> Pixels:
    """Mean colours of the part of each cell that lies on the slide: past its edge there is white."""
    partial = (coverage < 1) & (coverage > 0)
    share = coverage[partial][:, None]
    corrected = cells.copy()
    corrected[partial] = np.clip(np.round((cells[partial] - WHITE * (1 - share)) / share), 0, WHITE).astype(np.uint8)
    return corrected


def _mask(density: Densities, pen: Mask) -> tuple[Mask, float]:
    _, green, blue = density
    mean, densest = density.mean(axis=0), density.max(axis=0)
    colour = densest - density.min(axis=0)
    threshold = float(np.clip(_otsu(mean), LEAST_THRESHOLD, MOST_THRESHOLD))
    glue = (mean < _GLUE_DENSITY) & (blue > _GLUE_RATIO * green)
    stained = (colour > _LEAST_SPREAD * mean) & ~glue
    sure = majority((mean > threshold) & (colour > LEAST_COLOUR) & stained, _MAJORITY)
    pale = majority((mean > PALE_THRESHOLD) & (colour > _PALE_COLOUR) & (green > _PALE_GREEN * densest) & stained, _MAJORITY)
    return grown(sure, pale) & ~pen, threshold


def _density(cells: Pixels) -> Densities:
    """Of R, G and B, [3, rows, columns]."""
    glass = cells[(cells >= _GLASS).all(axis=2)]
    white = np.percentile(glass, 90, axis=0) if len(glass) else np.full(3, _DEFAULT_WHITE)
    # A table by channel and level: a logarithm for each of 256 values instead of each cell.
    table = np.maximum(-np.log10(np.maximum(np.arange(256), 1)[:, None] / white[None, :]), 0).astype(np.float32)
    return np.stack([table[:, channel][cells[..., channel]] for channel in range(3)])


def _otsu(values: NDArray[np.float32]) -> float:
    counts, edges = np.histogram(values, bins=_BINS, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.argmax(np.nan_to_num(between)))])


def _coverage(length: int, scale: float, cells: int) -> NDArray[np.float64]:
    return np.clip(length / scale - np.arange(cells), 0.0, 1.0)
