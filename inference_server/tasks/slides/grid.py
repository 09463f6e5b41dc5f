"""The lattice of pixels that an analysis sees, laid over the whole slide, so that cutting it into tiles changes nothing.

Rule: the coarsest level that is not coarser than wanted is read. Where its mpp is within 5 % of a whole fraction of the wanted one
(the same, a half, a third, …), whole blocks of its pixels are averaged, and one pixel is taken as it is; else areas are averaged to
the wanted mpp exactly.
All of it is integer arithmetic on positions counted from the slide's corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.values import Pixels, SlideFacts
from inference_server.threads import on_core

_TOLERANCE = 0.05
# From this step on, edges of areas are whole pixels of the level; below, they are 1/64 px.
_WHOLE_FROM = 8.0
_PARTS = 64
# Pixels of a level that are read at once to be averaged, three bytes each; and those that are summed at once, twelve.
_MOST_PIXELS, _MOST_SUMMED = 32 * 1024 * 1024, 512 * 1024


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Cells of equal size over a slide, from its top left corner."""

    level: int
    # Pixels of the level per cell.
    step_x: float
    step_y: float
    # Cells; the last ones may reach past the slide's edge.
    width: int
    height: int
    # Level-0 pixels of the slide.
    slide_width: int
    slide_height: int
    # Level-0 pixels per cell.
    scale_x: float
    scale_y: float
    # Micrometres per cell.
    mpp_x: float
    mpp_y: float

    @property
    def cell_mm2(self) -> float:
        """Area of a cell."""
        return self.mpp_x * self.mpp_y / 1e6


def choose_grid(facts: SlideFacts, mpp: tuple[float, float], wanted: float) -> Grid:
    """The grid of an analysis. `mpp`: of level 0 along x and y; `wanted`: of the analysis."""
    mean = (mpp[0] + mpp[1]) / 2
    level = _coarsest(facts, wanted * (1 + _TOLERANCE) / mean)
    stored = facts.levels[level]
    step_x = _step(wanted / (mpp[0] * stored.downsample_x))
    step_y = _step(wanted / (mpp[1] * stored.downsample_y))
    return _grid(facts, level, (step_x * stored.downsample_x, step_y * stored.downsample_y), mpp)


def coarser(facts: SlideFacts, grid: Grid, factor: int) -> Grid:
    """The grid whose cells are `factor` × `factor` cells of another."""
    scale = grid.scale_x * factor, grid.scale_y * factor
    mpp = grid.mpp_x / grid.scale_x, grid.mpp_y / grid.scale_y
    level = _coarsest(facts, min(scale))
    return _grid(facts, level, scale, mpp)


def of_finer_level(facts: SlideFacts, grid: Grid) -> Grid | None:
    """The same cells, read from the next finer level; None where there is none."""
    finer = [index for index, level in enumerate(facts.levels) if level.downsample < facts.levels[grid.level].downsample]
    if not finer:
        return None
    level = max(finer, key=lambda index: facts.levels[index].downsample)
    stored = facts.levels[level]
    return replace(grid, level=level, step_x=grid.scale_x / stored.downsample_x, step_y=grid.scale_y / stored.downsample_y)


async def read_cells(regions: Regions, grid: Grid, x: int, y: int, width: int, height: int) -> Pixels:
    """Height × width × RGB means of cells from (x, y), which may lie outside of the grid."""
    cells: Pixels = (await read_all_cells(regions, grid, [(x, y)], width, height))[0]
    return cells


async def read_all_cells(regions: Regions, grid: Grid, corners: Sequence[tuple[int, int]], width: int, height: int) -> Pixels:
    """Blocks of one size as `read_cells` gives them, corners × height × width × RGB, read together."""
    if grid.step_x == grid.step_y == 1.0:
        return await regions.read_all(grid.level, corners, width, height)
    regions.check_size(int(width * grid.step_x), int(height * grid.step_y))
    # Of a level that is far finer some at a time, because cells do not depend on what they are read with.
    pixels = width * grid.step_x * grid.step_y
    together, rows = max(int(_MOST_PIXELS / (pixels * height)), 1), max(int(_MOST_PIXELS / pixels), 1)
    blocks = []
    for start in range(0, len(corners), together):
        some = corners[start : start + together]
        bands = [
            await _read_together(regions, grid, [(x, y + top) for x, y in some], width, min(rows, height - top))
            for top in range(0, height, rows)
        ]
        blocks.append(bands[0] if len(bands) == 1 else np.concatenate(bands, axis=1))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


async def _read_together(regions: Regions, grid: Grid, corners: Sequence[tuple[int, int]], width: int, height: int) -> Pixels:
    across, down = [_edges(grid.step_x, x, width) for x, _ in corners], [_edges(grid.step_y, y, height) for _, y in corners]
    origins = [(columns.first, rows.first) for columns, rows in zip(across, down, strict=True)]
    # Blocks of areas with parts of pixels differ by a pixel.
    wide, high = max(each.end - each.first for each in across), max(each.end - each.first for each in down)
    pixels = await regions.read_all(grid.level, origins, wide, high)
    if grid.step_x.is_integer() and grid.step_y.is_integer():
        return await on_core(lambda: np.stack([_reduce(each, int(grid.step_x), int(grid.step_y)) for each in pixels]))
    return await on_core(
        lambda: np.stack([_average(each, rows, columns) for each, rows, columns in zip(pixels, down, across, strict=True)])
    )


def _coarsest(facts: SlideFacts, most: float) -> int:
    fitting = [index for index, level in enumerate(facts.levels) if level.downsample <= most * 1.001]
    return max(fitting, key=lambda index: facts.levels[index].downsample, default=0)


def _step(exact: float) -> float:
    whole = max(round(exact), 1)
    return float(whole) if abs(exact - whole) <= _TOLERANCE * exact else exact


def _grid(facts: SlideFacts, level: int, scale: tuple[float, float], mpp: tuple[float, float]) -> Grid:
    stored = facts.levels[level]
    step_x, step_y = scale[0] / stored.downsample_x, scale[1] / stored.downsample_y
    return Grid(
        level=level,
        step_x=step_x,
        step_y=step_y,
        width=_cells(facts.width, scale[0]),
        height=_cells(facts.height, scale[1]),
        slide_width=facts.width,
        slide_height=facts.height,
        scale_x=scale[0],
        scale_y=scale[1],
        mpp_x=mpp[0] * scale[0],
        mpp_y=mpp[1] * scale[1],
    )


def _cells(length: int, scale: float) -> int:
    # A sliver below a thousandth of a cell is rounding of the scale.
    return max(int(np.ceil(length / scale - 1e-3)), 1)


@dataclass(frozen=True, kw_only=True)
class _Edges:
    """Where cells begin and end along one axis, in parts of a pixel of the level, counted from the slide's corner."""

    # One more than there are cells.
    positions: NDArray[np.int64]
    # Parts per pixel.
    parts: int

    @property
    def first(self) -> int:
        """First pixel that is touched."""
        return int(self.positions[0] // self.parts)

    @property
    def end(self) -> int:
        """One past the last pixel that is touched."""
        return int(-(-self.positions[-1] // self.parts))

    def part(self, start: int, end: int) -> _Edges:
        """Of some of the cells."""
        return _Edges(positions=self.positions[start : end + 1], parts=self.parts)


def _edges(step: float, start: int, count: int) -> _Edges:
    parts = 1 if step >= _WHOLE_FROM or step.is_integer() else _PARTS
    # Each edge is rounded for itself, from its own number, so that it is the same in whatever tile it appears.
    return _Edges(positions=np.floor(np.arange(start, start + count + 1) * (step * parts) + 0.5).astype(np.int64), parts=parts)


def _reduce(pixels: Pixels, across: int, down: int) -> Pixels:
    """Means of whole blocks; each comes from its own pixels only, in integers."""
    return np.asarray(Image.fromarray(pixels).reduce((across, down)))


def _average(pixels: Pixels, rows: _Edges, columns: _Edges) -> Pixels:
    touched = pixels[:, : columns.end - columns.first]
    count = len(rows.positions) - 1
    some = max(_MOST_SUMMED * count // max((rows.end - rows.first) * touched.shape[1], 1), 1)
    return np.concatenate([_averages(touched, rows, rows.part(start, start + some), columns) for start in range(0, count, some)])


def _averages(pixels: Pixels, every: _Edges, rows: _Edges, columns: _Edges) -> Pixels:
    """Of some rows of cells. `pixels`: of `every` row."""
    touched = pixels[rows.first - every.first : rows.end - every.first]
    high, wide = np.diff(rows.positions), np.diff(columns.positions)
    # In as few bytes as hold a column of a cell. The picture is turned, so that rows are summed up both times.
    narrow = np.uint16 if high.max() * 255 < 2**16 else np.int32
    down = _sums(touched.reshape(len(touched), -1), rows, np.dtype(narrow)).reshape(len(high), -1, 3)
    turned: NDArray[np.integer] = np.asarray(cv2.transpose(down), narrow)
    total = _sums(turned.reshape(len(turned), -1), columns, np.dtype(np.int32)).reshape(len(wide), -1, 3)
    areas = (wide[:, None] * high)[..., None]
    # The whole part of a quotient is exact in floats of 64 bits, whose division is many times as fast.
    averages: Pixels = np.asarray(cv2.transpose(((total + areas // 2) / areas.astype(np.float64)).astype(np.uint8)))
    return averages


def _sums(values: NDArray[np.integer], edges: _Edges, dtype: np.dtype[np.integer]) -> NDArray[np.integer]:
    """Sums over the rows of each cell, weighted by the parts of each row that lie in the cell."""
    relative = edges.positions - edges.first * edges.parts
    starts, ends = relative[:-1], relative[1:]
    first = starts // edges.parts
    total = np.zeros((len(starts), values.shape[1]), dtype)
    for tap in range(int(np.max(-(-ends // edges.parts) - first))):
        index = first + tap
        weight = np.clip(np.minimum(ends, (index + 1) * edges.parts) - np.maximum(starts, index * edges.parts), 0, None)
        part = values[np.minimum(index, len(values) - 1)].astype(dtype, copy=False)
        part *= weight.astype(dtype)[:, None]
        total += part
    return total
