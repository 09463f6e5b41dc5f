"""Where tissue is, on mean colours of cells."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.readers.image import facts_of
from inference_server.tasks.slides.tiling import tissue_tiles
from inference_server.tasks.slides.tissue import Tissue, find_tissue

EDGE = 100
PINK = (215, 150, 190)


async def tissue_of(cells: NDArray[np.uint8]) -> Tissue:
    height, width, _ = cells.shape
    grid = Grid(level=0, step_x=1, step_y=1, width=width, height=height, scale_x=1, scale_y=1, mpp_x=8, mpp_y=8)
    return await find_tissue(facts_of("", cells, (8, 8)), grid, cells)


def cells_of(background: tuple[int, int, int], *patches: tuple[slice, slice, tuple[int, int, int]]) -> NDArray[np.uint8]:
    cells = np.full((EDGE, EDGE, 3), background, np.int16)
    for rows, columns, colour in patches:
        cells[rows, columns] = colour
    return np.clip(cells + np.random.default_rng(1).integers(-2, 3, cells.shape), 0, 255).astype(np.uint8)


MIDDLE = (slice(20, 60), slice(30, 80))


@pytest.mark.parametrize("background", [(255, 255, 255), (243, 243, 243), (238, 236, 228), (225, 224, 226)])
@pytest.mark.parametrize("colour", [PINK, (120, 70, 150), (214, 196, 208)], ids=["pink", "dark", "pale"])
async def test_a_patch_of_tissue_is_found(background: tuple[int, int, int], colour: tuple[int, int, int]) -> None:
    found = await tissue_of(cells_of(background, (*MIDDLE, colour)))
    expected = np.zeros((EDGE, EDGE), bool)
    expected[MIDDLE] = True
    assert 0.01 > np.mean(expected != found.mask)


async def test_glass_alone_is_no_tissue() -> None:
    assert 0.0 == (await tissue_of(cells_of((241, 240, 238)))).area_mm2


async def test_tissue_alone_is_all_tissue() -> None:
    assert 1.0 == (await tissue_of(cells_of(PINK))).share


async def test_grey_shadows_are_no_tissue() -> None:
    assert 0.0 == (await tissue_of(cells_of((243, 243, 243), (*MIDDLE, (150, 150, 150))))).area_mm2


async def test_specks_are_dropped_and_pinholes_closed() -> None:
    speck, pinhole = (slice(80, 82), slice(10, 12), PINK), (slice(40, 42), slice(50, 52), (243, 243, 243))
    found = await tissue_of(cells_of((243, 243, 243), (*MIDDLE, PINK), speck, pinhole))
    assert not found.mask[78:84, 8:14].any()
    assert found.mask[38:44, 48:54].all()


def test_tiles_lie_where_tissue_is_each_once() -> None:
    mask = np.zeros((70, 50), bool)
    mask[5:9, 3:30] = True
    mask[69, 49] = True
    tiles = tissue_tiles(mask, cell=16, size=128, least=0.0)
    assert {(0, 0), (128, 0), (256, 0), (384, 0), (0, 128), (128, 128), (256, 128), (384, 128), (768, 1024)} == {(t.x, t.y) for t in tiles}
    assert len({(t.x, t.y) for t in tiles}) == len(tiles)
    assert int(mask.sum()) == round(sum(t.tissue for t in tiles) * 64)


def test_tiles_with_little_tissue_can_be_left_out() -> None:
    mask = np.zeros((16, 16), bool)
    mask[0, 0] = mask[8:, :8] = True
    assert [(0, 128)] == [(t.x, t.y) for t in tissue_tiles(mask, cell=16, size=128, least=0.1)]
