"""How many bytes of a slide an analysis needs: counted from the file's own directories, by no code that reads slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from inference_server.tasks.slides.findings import AnalysisPlan
from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.survey import Slide
from inference_server.tasks.slides.tiling import Tile
from inference_server.tasks.slides.values import Level

# Longest side of the picture below the overlay.
_PICTURE = 2048


def needed_bytes(path: Path, slide: Slide, plan: AnalysisPlan, *, overlay: bool = True) -> int:
    """Of the stored tiles below the tiles of an analysis and their halo, and of the level that shows where tissue is.

    `overlay`: whether its picture is made too, for which small slides need a level of their own.
    """
    levels, grid = slide.facts.levels, slide.grid
    needed = [np.zeros((level.rows, level.columns), bool) for level in levels]
    needed[grid.level] |= tiles_below(levels[grid.level], grid, slide.tiles, plan)
    needed[_coarsest(levels, grid.scale_x * plan.cell)][:] = True
    factor = -(-max(grid.width, grid.height) // _PICTURE)
    if overlay and factor < plan.cell:
        needed[_coarsest(levels, grid.scale_x * factor)][:] = True
    with tifffile.TiffFile(path) as tiff:
        pages = {(page.shape[1], page.shape[0]): page for page in tiff.pages}
        counts = [np.array(pages[level.width, level.height].databytecounts, np.int64) for level in levels]
    return sum(int(count[chosen.reshape(-1)].sum()) for count, chosen in zip(counts, needed, strict=True))


def _coarsest(levels: Sequence[Level], most: float) -> int:
    """The coarsest level that is no coarser than so many pixels of level 0 a pixel."""
    return max((index for index, each in enumerate(levels) if each.downsample <= most * 1.001), key=lambda index: levels[index].downsample)


def tiles_below(level: Level, grid: Grid, tiles: Sequence[Tile], plan: AnalysisPlan) -> NDArray[np.bool_]:
    """Which stored tiles of the level that is read lie below tiles of an analysis and their halo, by row and column."""
    step_x, step_y, edge = grid.step_x, grid.step_y, plan.tile_size + plan.halo
    below = np.zeros((level.rows, level.columns), bool)
    for tile in tiles:
        left, top = max(int((tile.x - plan.halo) * step_x), 0), max(int((tile.y - plan.halo) * step_y), 0)
        right, bottom = int(-(-(tile.x + edge) * step_x // 1)), int(-(-(tile.y + edge) * step_y // 1))
        below[top // level.tile_height : -(-bottom // level.tile_height), left // level.tile_width : -(-right // level.tile_width)] = True
    return below
