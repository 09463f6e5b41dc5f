"""The order in which tiles are visited, and how much stays in memory for their neighbours."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from inference_server.tasks.slides.findings import AnalysisPlan
from inference_server.tasks.slides.grid import read_all_cells
from inference_server.tasks.slides.survey import boxes_of, outline
from inference_server.tasks.slides.tiling import tissue_tiles
from inference_server.tasks.slides.values import AnalysisRequest, Level, Pixels, Position, SlideFacts, SlideLimits
from tests.support.slides.needed_bytes import tiles_below

STORED, CELL = 256, 64


@dataclass(kw_only=True)
class CountingReader:
    """A slide of nothing, and how often each of its stored tiles was read."""

    facts: SlideFacts
    read: Counter[tuple[int, int]] = field(default_factory=Counter)
    _tile: Pixels = field(default_factory=lambda: np.zeros((STORED, STORED, 3), np.uint8))

    async def read_tiles(self, level: int, places: Sequence[Position], soon: Sequence[Position] = ()) -> list[Pixels | None]:
        self.read.update(places)
        await asyncio.sleep(0)
        return [self._tile for _ in places]

    async def close(self) -> None:
        """There is nothing to close."""


def slide_of(width: int, height: int, mpp: float) -> SlideFacts:
    level = Level(width=width, height=height, downsample_x=1, downsample_y=1, tile_width=STORED, tile_height=STORED)
    return SlideFacts(uri="", vendor="", reader="", levels=(level,), mpp_x=mpp, mpp_y=mpp, objective_power=None)


def plan_with(size: int, halo: int) -> AnalysisPlan:
    return AnalysisPlan(
        model="m", outputs=(), mpp=0.5, tile_size=size, halo=halo, cell=CELL, least_tissue=0.0, batch=1, learned_weights=False
    )


@pytest.mark.parametrize(
    ("size", "halo", "step"),
    [(512, 64, 1), (512, 64, 2), (1536, 256, 2), (2048, 512, 1), (1024, 64, 2), (3072, 64, 1), (3584, 256, 1), (4096, 0, 1)],
)
async def test_stored_tiles_are_read_once_where_stripes_meet_too(size: int, halo: int, step: int) -> None:
    # Columns of one tile, three of them, or of 1,024 px; more than one stripe.
    wide, high = max(3 * size, 3072), 8192 // size * size + size
    needed, read = await read_tiles_of(plan_with(size, halo), wide, high, step)
    assert needed == read


async def test_where_more_tissue_lies_side_by_side_than_is_kept_little_is_read_twice() -> None:
    plan = plan_with(256, 22)
    needed, read = await read_tiles_of(plan, 200 * 256, 36 * 256, 1)
    assert 1 < read / needed <= 1.05


async def read_tiles_of(plan: AnalysisPlan, wide: int, high: int, step: int) -> tuple[int, int]:
    """Stored tiles that an analysis of dense tissue needs, all of which it reads, and how many it reads, those read again included."""
    size, halo = plan.tile_size, plan.halo
    reader = CountingReader(facts=slide_of(wide * step, high * step, plan.mpp / step))
    outlined = outline(reader, AnalysisRequest(slide_uri=""), plan, SlideLimits())
    grid = outlined.grid
    assert (step, wide, high) == (grid.step_x, grid.width, grid.height)
    tiles = tissue_tiles(np.ones((high // CELL, wide // CELL), bool), cell=CELL, size=size, least=0.0)
    outlined.regions.expect(grid.level, boxes_of(tiles, grid, halo))
    todo, edge = iter(tiles), size + 2 * halo

    async def work() -> None:
        for tile in todo:
            await read_all_cells(outlined.regions, grid, [(tile.x - halo, tile.y - halo)], edge, edge)

    await asyncio.gather(*(work() for _ in range(SlideLimits().calls_in_flight)))
    needed = int(tiles_below(reader.facts.levels[0], grid, tiles, plan).sum())
    assert needed == len(reader.read)
    return needed, reader.read.total()
