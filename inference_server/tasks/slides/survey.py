"""What is known of a slide before its tiles are analysed: the grid, where the tissue is, and which tiles are called together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides import overview, resolution
from inference_server.tasks.slides.budget import CacheBudget
from inference_server.tasks.slides.findings import AnalysisPlan
from inference_server.tasks.slides.grid import Grid, choose_grid, coarser, read_all_cells
from inference_server.tasks.slides.outputs import thumbnails
from inference_server.tasks.slides.outputs.thumbnails import Thumbnail
from inference_server.tasks.slides.readers.port import SlideReader
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.tiling import Tile, bytes_to_keep, tissue_tiles
from inference_server.tasks.slides.tissue.cells import colours_where, some_of
from inference_server.tasks.slides.tissue.mask import Tissue, find_tissue
from inference_server.tasks.slides.values import AnalysisRequest, Pixels, SlideFacts, SlideLimits


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A slide that is open, and the grid of its analysis."""

    regions: Regions
    facts: SlideFacts
    # Micrometres per pixel of level 0 along x and y.
    mpp: tuple[float, float]
    grid: Grid


@dataclass(frozen=True, kw_only=True)
class Slide(Outline):
    """A slide surveyed: where its tissue is, and which tiles will be analysed."""

    tissue: Tissue
    # Mean colours of the tissue's cells in reading order, of many some; count × RGB.
    colours: Pixels
    # From the cells; None where they are too coarse for one.
    thumbnail: Thumbnail | None
    tiles: Sequence[Tile]
    # The tiles by model call. A run that goes on from another has the same.
    batches: Sequence[tuple[Tile, ...]]


def outline(
    reader: SlideReader,
    request: AnalysisRequest,
    plan: AnalysisPlan,
    limits: SlideLimits,
    *,
    moved: Callable[[], None] = lambda: None,
    caches: CacheBudget | None = None,
) -> Outline:
    """Lay the grid of an analysis. Raises `InvalidSlide`, `InvalidInput`.

    `moved`: called whenever some of the slide is read; `caches`: of the slides that are read at the same time.
    """
    facts = reader.facts
    mpp = resolution.effective(facts, request.mpp, request.assumed_mpp)
    grid, kept = _grid_of(facts, request, plan, limits)
    share = (caches or CacheBudget(limits.most_cache_bytes)).taken(kept)
    regions = Regions(
        reader,
        cache_bytes=share.bytes,
        most_unreadable=limits.most_unreadable,
        analysed=grid.level,
        moved=moved,
        forgotten=share.end,
    )
    return Outline(regions=regions, facts=facts, mpp=mpp, grid=grid)


def is_read_over(facts: SlideFacts, request: AnalysisRequest, plan: AnalysisPlan, limits: SlideLimits) -> bool:
    """Whether all of level 0 is read more than once, for the survey, the tiles and pictures: it has no smaller level, and is not kept.

    Raises as `outline` does.
    """
    grid, kept = _grid_of(facts, request, plan, limits)
    return coarser(facts, grid, plan.cell).level == 0 and facts.width * facts.height * 3 > kept


def _grid_of(facts: SlideFacts, request: AnalysisRequest, plan: AnalysisPlan, limits: SlideLimits) -> tuple[Grid, int]:
    """The grid of an analysis, and how many bytes of decoded tiles are kept."""
    mpp = resolution.effective(facts, request.mpp, request.assumed_mpp)
    resolution.check_fine_enough(facts, mpp, wanted=plan.mpp, analysis=plan.model)
    grid = choose_grid(facts, mpp, plan.mpp)
    step = grid.step_x, grid.step_y
    return grid, bytes_to_keep(facts.levels[grid.level], step, size=plan.tile_size, halo=plan.halo, most=limits.cache_bytes)


async def scan_cells(outlined: Outline, plan: AnalysisPlan) -> Pixels:
    """Mean colours of the tissue mask's cells, read from the slide. Raises `InvalidSlide`, `Unavailable`."""
    grid = coarser(outlined.facts, outlined.grid, plan.cell)
    cells = await overview.read(outlined.regions, grid)
    if grid.level != outlined.grid.level:
        outlined.regions.drop(grid.level)
    return cells


def fits(cells: Pixels, outlined: Outline, plan: AnalysisPlan) -> bool:
    """Whether cells that an earlier run read are as many as the slide has."""
    grid = coarser(outlined.facts, outlined.grid, plan.cell)
    return cells.shape == (grid.height, grid.width, 3) and cells.dtype == np.uint8


async def survey(outlined: Outline, plan: AnalysisPlan, cells: Pixels, *, call_share: float) -> Slide:
    """Find the tissue; the cells are not held. `call_share`: most tiles of one call as a share of all; a call has at least one."""
    facts, grid = outlined.facts, outlined.grid
    tissue, thumbnail = await asyncio.gather(
        find_tissue(facts, coarser(facts, grid, plan.cell), cells, keeps_ink=plan.keeps_ink),
        asyncio.to_thread(thumbnails.from_cells, grid, cells, plan.cell),
    )
    tiles, colours = await asyncio.gather(
        asyncio.to_thread(
            tissue_tiles, tissue.mask, cell=plan.cell, size=plan.tile_size, least=plan.least_tissue, most=(grid.height, grid.width)
        ),
        asyncio.to_thread(colours_where, tissue.mask, cells),
    )
    outlined.regions.expect(grid.level, await asyncio.to_thread(boxes_of, tiles, grid, plan.halo))
    size = max(min(plan.batch, int(call_share * len(tiles))), 1)
    return Slide(
        regions=outlined.regions,
        facts=facts,
        mpp=outlined.mpp,
        grid=grid,
        tissue=tissue,
        colours=some_of(colours).copy(),
        thumbnail=thumbnail,
        tiles=tiles,
        batches=[tuple(tiles[start : start + size]) for start in range(0, len(tiles), size)],
    )


def pixels_under_way(slide: Slide, plan: AnalysisPlan, batch: Sequence[Tile]) -> int:
    """What a call of these tiles holds, counted as pixels of its grid of usual models; those of the level beyond four for each of them."""
    grid = slide.grid
    return int(len(batch) * (plan.tile_size + 2 * plan.halo) ** 2 * max(grid.step_x * grid.step_y / 4, plan.weight))


def boxes_of(tiles: Sequence[Tile], grid: Grid, halo: int) -> NDArray[np.int64]:
    """Left, top, right and bottom of tiles with their halo in pixels of the level that is read, [count, 4]."""
    corners = np.array([(tile.x - halo, tile.y - halo) for tile in tiles], np.int64).reshape(-1, 2)
    edge, step = tiles[0].size + 2 * halo if tiles else 0, np.array([grid.step_x, grid.step_y])
    # Tiles that are read together are as wide as the widest of them: where pixels are parted, by one.
    spare = step % 1 > 0
    return np.concatenate([np.floor(corners * step), np.ceil((corners + edge) * step) + spare], axis=1).astype(np.int64)


async def read_batch(slide: Slide, plan: AnalysisPlan, batch: Sequence[Tile]) -> Pixels:
    """The pixels of some tiles with their halo, [count, rows, columns, 3]. Raises `InvalidSlide`, `Unavailable`."""
    edge = plan.tile_size + 2 * plan.halo
    corners = [(tile.x - plan.halo, tile.y - plan.halo) for tile in batch]
    return await read_all_cells(slide.regions, slide.grid, corners, edge, edge)
