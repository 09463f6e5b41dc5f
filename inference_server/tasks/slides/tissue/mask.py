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

from inference_server.tasks.slides.events import first_failure
from inference_server.tasks.slides.grid import Grid, read_cells
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.tiling import cell_sums
from inference_server.tasks.slides.tissue.cells import Mask, PackedMask, grown, majority
from inference_server.tasks.slides.tissue.densities import CellDensities, Densities
from inference_server.tasks.slides.tissue.quality import folds, ink, pen_marks
from inference_server.tasks.slides.values import Pixels, SlideFacts

# Bounds of the threshold, in mean OD over R, G, B: below, dust and uneven light; above, pale stroma would be lost.
LEAST_THRESHOLD = 0.04
MOST_THRESHOLD = 0.07
# Least difference between the densest and the clearest channel, in OD, and over the mean: shadows, pencil and the edge of a coverslip
# are grey, stains are not.
LEAST_COLOUR = 0.025
_LEAST_SPREAD = 0.2
# Glue beyond the coverslip is pale and yellow: clearer than this in the mean, and denser in blue than in green so many times. Brown
# stains are pale in places too: DAB has 1.37, melanin 1.5, and a level more or less of a pale cell is a tenth of that.
_GLUE_DENSITY, _GLUE_RATIO = 0.12, 1.8
# Pale tissue beside denser: least mean density and difference, and green at least so much of red, and of blue: DAB has 0.73 of blue.
PALE_THRESHOLD = 0.02
_PALE_COLOUR, _PALE_RED, _PALE_BLUE = 0.015, 0.9, 0.65
# A cell takes the majority of the 5 × 5 cells around it (40 µm), which drops specks and closes pinholes.
_MAJORITY = 5
# Level pixels of a block along each axis, and blocks that are read at once, while the slide is scanned.
_SCAN_PIXELS = 1536
_BLOCKS_AT_A_TIME = 2
_BINS = 256
# Below this mean density a cell is neither tissue nor ink, whatever its colour.
_CLEAR = PALE_THRESHOLD


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """The mask of a slide."""

    grid: Grid
    # Rows × columns of the grid.
    mask: Mask
    # Share of each row and of each column of cells that lies on the slide; below 1 only at the bottom and the right edge.
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    # Mean OD over R, G, B above which a cell is tissue.
    threshold: float
    # Of `pen` and `folded`.
    packed_pen: PackedMask
    packed_folded: PackedMask

    @property
    def pen(self) -> Mask:
        """Cells with ink on them, which are no tissue; made anew each time."""
        return self.packed_pen.unpacked()

    @property
    def folded(self) -> Mask:
        """Cells of tissue in more than one layer; made anew each time."""
        return self.packed_folded.unpacked()

    @property
    def area_mm2(self) -> float:
        """Area of tissue."""
        return self.mm2_of(self.mask)

    def mm2_of(self, mask: Mask) -> float:
        """Area of some cells."""
        return self._cells(mask) * self.grid.cell_mm2

    @property
    def share(self) -> float:
        """Share of the slide that is tissue."""
        return self._cells(self.mask) / float(self.rows.sum() * self.columns.sum())

    def areas(self, grid: Grid, size: int) -> NDArray[np.float64]:
        """Tissue of each tile in mm², by row and column of the tile. `grid`: of the analysis; `size`: edge of a tile in its pixels."""
        covered = grid.slide_height / grid.scale_y, grid.slide_width / grid.scale_x
        pixels = cell_sums(self.mask, cell=self.cell_of(grid), size=size, most=(grid.height, grid.width), covered=covered)
        return pixels * grid.cell_mm2

    def cell_of(self, grid: Grid) -> int:
        """Edge of a cell, in pixels of the analysis' grid."""
        return round(self.grid.scale_x / grid.scale_x)

    def _cells(self, mask: Mask) -> float:
        """Whole cells that some of them make up on the slide."""
        high, wide = np.count_nonzero(self.rows == 1), np.count_nonzero(self.columns == 1)
        beside = mask[:high, wide:] @ self.columns[wide:]
        below = mask[high:] @ self.columns * self.rows[high:]
        # Most lie on it wholly, and are counted many times as fast as they are summed up.
        return float(np.count_nonzero(mask[:high, :wide]) + beside.sum() + below.sum())


async def scan(regions: Regions, grid: Grid) -> Pixels:
    """Mean colours of all cells of a coarse grid, read block by block, two at a time."""
    cells = np.empty((grid.height, grid.width, 3), np.uint8)
    block = max(int(_SCAN_PIXELS / max(grid.step_x, grid.step_y)), 1)
    corners = iter([(x, y) for y in range(0, grid.height, block) for x in range(0, grid.width, block)])

    async def read() -> None:
        for x, y in corners:
            height, width = min(block, grid.height - y), min(block, grid.width - x)
            cells[y : y + height, x : x + width] = await read_cells(regions, grid, x, y, width, height)

    with first_failure():
        async with asyncio.TaskGroup() as group:
            for _ in range(_BLOCKS_AT_A_TIME):
                group.create_task(read())
    return cells


async def find_tissue(facts: SlideFacts, grid: Grid, cells: Pixels, *, keeps_ink: bool = False) -> Tissue:
    """The mask from the mean colours of cells of about 8 µm. `keeps_ink`: what has the colours of ink is tissue, and no ink is told."""
    return await asyncio.to_thread(_find_tissue, facts, grid, cells, keeps_ink)


def _find_tissue(facts: SlideFacts, grid: Grid, cells: Pixels, keeps_ink: bool) -> Tissue:
    rows, columns = _coverage(facts.height, grid.scale_y, grid.height), _coverage(facts.width, grid.scale_x, grid.width)
    density = CellDensities(cells, rows=rows, columns=columns)
    mask, packed_pen, threshold = _masks(density, keeps_ink)
    packed_folded = PackedMask.of(folds(density, mask))
    return Tissue(
        grid=grid,
        mask=mask,
        rows=rows,
        columns=columns,
        threshold=threshold,
        packed_pen=packed_pen,
        packed_folded=packed_folded,
    )


def _masks(density: CellDensities, keeps_ink: bool) -> tuple[Mask, PackedMask, float]:
    """Tissue, ink, and the threshold. Each mask of the whole slide is let go as soon as what it is for is made."""
    seen = _see(density)
    threshold = seen.threshold
    pen = PackedMask.of(np.zeros_like(seen.inked) if keeps_ink else pen_marks(seen.inked, seen.faintly_inked))
    sure, likely = majority(seen.sure, _MAJORITY), majority(seen.pale, _MAJORITY)
    del seen
    mask = grown(sure, likely)
    mask &= ~pen.unpacked()
    return mask, pen, threshold


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What the colour of each cell tells."""

    # The colour of stains, and dense enough; and the colour of pale tissue.
    sure: Mask
    pale: Mask
    inked: Mask
    faintly_inked: Mask
    threshold: float


def _see(density: CellDensities) -> _Seen:
    stained, pale, inked, faintly_inked = (np.zeros(density.shape, np.bool_) for _ in range(4))

    def see(rows: slice, every: Densities) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Fill the masks; how often each density occurs, and those of what has the colour of stains."""
        mean = every.mean
        dense = mean > _CLEAR
        some = every.where(dense)
        coloured, spread = _coloured(some), some.spread
        stained[rows][dense] = of_stains = coloured & (spread > LEAST_COLOUR)
        pale[rows][dense] = coloured & (spread > _PALE_COLOUR) & (some.green > _PALE_RED * some.red) & (some.green > _PALE_BLUE * some.blue)
        inked[rows][dense], faintly_inked[rows][dense] = ink(some)
        return _histogram(mean), mean[dense][of_stains]

    counts, means = zip(*density.by_stripes(see), strict=True)
    threshold = float(np.clip(_otsu(np.sum(counts, axis=0)), LEAST_THRESHOLD, MOST_THRESHOLD))
    # Which of the stained ones are dense enough is known when all have been seen.
    stained[stained] = np.concatenate(means) > threshold
    return _Seen(sure=stained, pale=pale, inked=inked, faintly_inked=faintly_inked, threshold=threshold)


def _coloured(density: Densities) -> Mask:
    """Neither grey nor glue."""
    mean = density.mean
    glue = (mean < _GLUE_DENSITY) & (density.blue > _GLUE_RATIO * density.green)
    return (density.spread > _LEAST_SPREAD * mean) & ~glue


def _histogram(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many values from 0 up to 1 lie in each bin."""
    return np.bincount((values * _BINS).astype(np.int64).reshape(-1), minlength=_BINS)[:_BINS]


def _otsu(counts: NDArray[np.int64]) -> float:
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.argmax(np.nan_to_num(between)))])


def _coverage(length: int, scale: float, cells: int) -> NDArray[np.float64]:
    return np.clip(length / scale - np.arange(cells), 0.0, 1.0)
