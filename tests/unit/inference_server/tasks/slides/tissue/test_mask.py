"""Where tissue is, on mean colours of cells."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.errors import InvalidSlide
from inference_server.tasks.slides import tiling
from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.readers.image import facts_of
from inference_server.tasks.slides.tiling import tissue_tiles
from inference_server.tasks.slides.tissue.mask import Tissue, find_tissue
from tests.support.slides.painted import INKS

EDGE = 100
PINK = (215, 150, 190)


async def tissue_of(cells: NDArray[np.uint8], **asked: bool) -> Tissue:
    height, width, _ = cells.shape
    size = {"width": width, "height": height, "slide_width": width, "slide_height": height}
    grid = Grid(level=0, step_x=1, step_y=1, scale_x=1, scale_y=1, mpp_x=8, mpp_y=8, **size)
    return await find_tissue(facts_of("", cells, (8, 8)), grid, cells, **asked)


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


@pytest.mark.parametrize("background", [(255, 255, 255), (243, 243, 243), (240, 231, 238), (228, 232, 243), (232, 226, 238)])
async def test_what_was_not_scanned_changes_no_mask(background: tuple[int, int, int]) -> None:
    """It is pure white, and the glass of many scanners is not."""
    cells = cells_of(background, (*MIDDLE, PINK))
    slide = np.full((3 * EDGE, 3 * EDGE, 3), 255, np.uint8)
    slide[EDGE : 2 * EDGE, EDGE : 2 * EDGE] = cells
    expected = np.zeros(slide.shape[:2], bool)
    expected[EDGE : 2 * EDGE, EDGE : 2 * EDGE] = (await tissue_of(cells)).mask
    np.testing.assert_array_equal(expected, (await tissue_of(slide)).mask)


async def test_pale_tissue_on_a_background_that_was_painted_white_is_no_glass() -> None:
    random = np.random.default_rng(2)
    cells = np.full((EDGE, EDGE, 3), 255, np.uint8)
    density = np.clip(random.normal(0.06, 0.015, (40, 50, 1)), 0.03, None) * np.array((0.4, 1.5, 1.0))
    cells[MIDDLE] = np.round(255 * 10.0**-density)
    expected = np.zeros((EDGE, EDGE), bool)
    expected[MIDDLE] = True
    assert 0.02 > np.mean(expected != (await tissue_of(cells)).mask)


@pytest.mark.parametrize("colour", [(245, 216, 229), (234, 218, 238)], ids=["pink", "violet"])
async def test_even_tissue_on_a_background_that_was_painted_white_is_no_glass(colour: tuple[int, int, int]) -> None:
    cells = np.full((EDGE, EDGE, 3), 255, np.uint8)
    cells[MIDDLE] = cells_of(colour)[MIDDLE]
    expected = np.zeros((EDGE, EDGE), bool)
    expected[MIDDLE] = True
    assert 0.01 > np.mean(expected != (await tissue_of(cells)).mask)


@pytest.mark.parametrize("colour", [(100, 150, 205), (120, 190, 200), (235, 60, 130)], ids=["trichrome", "alcian", "ziehl_neelsen"])
async def test_stains_that_have_the_colours_of_ink_are_tissue_where_ink_is_kept(colour: tuple[int, int, int]) -> None:
    cells = cells_of((243, 243, 243), (*MIDDLE, colour))
    expected = np.zeros((EDGE, EDGE), bool)
    expected[MIDDLE] = True
    kept, excluded = await tissue_of(cells, keeps_ink=True), await tissue_of(cells)
    assert 0.01 > np.mean(expected != kept.mask)
    assert not kept.pen.any()
    assert 0.0 == excluded.area_mm2


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


GLASS = (243, 243, 243)
STROKE = (slice(0, EDGE), slice(60, 72))


@pytest.mark.parametrize("ink", INKS)
async def test_ink_on_glass_is_no_tissue_and_told_as_ink(ink: str) -> None:
    found = await tissue_of(cells_of(GLASS, (slice(20, 60), slice(10, 40), PINK), (*STROKE, INKS[ink])))
    assert pytest.approx(40 * 30 * 64e-6, rel=0.02) == found.area_mm2
    assert pytest.approx(12 * EDGE * 64e-6, rel=0.02) == found.mm2_of(found.pen)


@pytest.mark.parametrize("ink", ["light blue", "green", "orange", "yellow"])
async def test_thin_ink_on_glass_is_no_tissue(ink: str) -> None:
    thin = 243 * (np.array(INKS[ink]) / 255) ** 0.5
    red, green, blue = (int(level) for level in thin)
    found = await tissue_of(cells_of(GLASS, (slice(20, 60), slice(10, 40), PINK), (*STROKE, (red, green, blue))))
    assert pytest.approx(40 * 30 * 64e-6, rel=0.02) == found.area_mm2


async def test_the_thin_border_of_a_red_stroke_is_ink_as_its_middle_is() -> None:
    cells = cells_of(GLASS, (slice(20, 60), slice(10, 40), PINK))
    strength = np.concatenate([np.linspace(0.3, 1, 6), np.linspace(1, 0.3, 6)])
    cells[STROKE] = np.round(243 * (np.array(INKS["red"]) / 255) ** strength[None, :, None])
    found = await tissue_of(cells)
    assert pytest.approx(40 * 30 * 64e-6, rel=0.02) == found.area_mm2


@pytest.mark.parametrize("ink", ["blue", "green", "black"])
async def test_ink_over_tissue_is_ink_and_the_rest_stays_tissue(ink: str) -> None:
    """Ink lets some light through: what is seen is the product of both."""
    cells = cells_of(PINK)
    cells[STROKE] = np.round(cells[STROKE] * np.array(INKS[ink]) / 255.0)
    found = await tissue_of(cells)
    assert found.pen[STROKE].mean() > 0.98
    assert found.mask.sum() + found.pen.sum() == EDGE * EDGE


# Eosin as Ruifrok and Johnston have it, next to no red and blue; DAB, thin and dense; haematoxylin that is bluish.
UNUSUAL = [(224, 78, 215), (190, 147, 120), (140, 76, 50), (114, 132, 189)]


@pytest.mark.parametrize(
    "colour", [PINK, (120, 70, 150), (160, 60, 110), (90, 60, 140), (200, 40, 70), (140, 95, 60), (70, 60, 130), *UNUSUAL]
)
async def test_stains_pigment_and_blood_are_no_ink(colour: tuple[int, int, int]) -> None:
    found = await tissue_of(cells_of(GLASS, (*MIDDLE, colour)))
    assert not found.pen.any()
    assert pytest.approx(40 * 50, rel=0.02) == int(found.mask.sum())


async def test_what_the_scanner_left_out_is_neither_tissue_nor_ink() -> None:
    found = await tissue_of(cells_of(GLASS, (*MIDDLE, PINK), (slice(80, 100), slice(0, EDGE), (0, 0, 0))))
    assert not found.pen.any()
    assert not found.mask[80:].any()


async def test_the_edge_of_a_coverslip_and_the_glue_beyond_it_are_no_tissue() -> None:
    edge, glue = (slice(0, EDGE), slice(84, 88), (120, 118, 110)), (slice(0, EDGE), slice(88, 100), (238, 232, 205))
    found = await tissue_of(cells_of(GLASS, (*MIDDLE, PINK), edge, glue))
    expected = np.zeros((EDGE, EDGE), bool)
    expected[MIDDLE] = True
    assert 0.01 > np.mean(expected != found.mask)


# DAB (its densities in R, G and B are as 0.27 to 0.57 to 0.78), eosin and haematoxylin, next to as pale as what is found.
PALE = {"DAB": (0.029, 0.061, 0.083), "eosin": (0.01, 0.096, 0.048), "haematoxylin": (0.07, 0.075, 0.031)}


@pytest.mark.parametrize("stain", PALE)
@pytest.mark.parametrize("background", [(255, 255, 255), (246, 244, 247), (240, 231, 238), (236, 222, 232), (230, 230, 228)])
async def test_pale_stains_are_tissue_with_and_without_a_part_that_was_not_scanned(background: tuple[int, int, int], stain: str) -> None:
    red, green, blue = (round(level * 10.0**-density) for level, density in zip(background, PALE[stain], strict=True))
    cells = cells_of(background, (*MIDDLE, (red, green, blue)))
    expected = np.zeros((EDGE, EDGE), bool)
    expected[MIDDLE] = True
    assert 0.01 > np.mean(expected != (await tissue_of(cells)).mask)
    slide = np.concatenate([np.full((EDGE // 2, EDGE, 3), 255, np.uint8), cells])
    assert 0.01 > np.mean(expected != (await tissue_of(slide)).mask[EDGE // 2 :])


@pytest.mark.parametrize(("dense", "pale"), [(PINK, (231, 221, 229)), ((190, 147, 120), (234, 225, 219))], ids=["eosin", "DAB"])
async def test_pale_tissue_that_hangs_together_with_denser_is_tissue_and_dirt_that_pale_is_not(
    dense: tuple[int, int, int], pale: tuple[int, int, int]
) -> None:
    beside, alone = (slice(20, 60), slice(75, 95)), (slice(75, 95), slice(10, 40))
    found = await tissue_of(cells_of(GLASS, (*beside, pale), (*MIDDLE, dense), (*alone, pale)))
    assert found.mask[20:60, 30:95].mean() > 0.97
    assert not found.mask[alone].any()


async def test_a_fold_is_told_from_tissue_that_is_densely_stained() -> None:
    # Two layers of tissue absorb twice; nuclei close together absorb more, but not twice as much.
    layer = np.array(PINK) / 243
    fold, dense = (slice(30, 36), slice(30, 80)), (slice(45, 58), slice(40, 60))
    cells = cells_of(GLASS, (*MIDDLE, (175, 110, 165)), (*dense, (120, 75, 150)))
    cells[fold] = np.round(243 * (cells[fold] / 243.0) ** 2 * layer**0.5)
    found = await tissue_of(cells)
    assert found.folded[fold].mean() > 0.95
    assert found.folded.sum() < 1.1 * 6 * 50
    assert (found.folded <= found.mask).all()


async def test_nothing_is_folded_or_inked_on_a_blank_slide() -> None:
    found = await tissue_of(cells_of(GLASS))
    assert (0, 0) == (int(found.pen.sum()), int(found.folded.sum()))


async def test_finding_tissue_takes_a_few_bytes_a_cell() -> None:
    """A slide of 100,000 px has ten million cells: densities of them all alone would take 12 bytes each."""
    cells = np.tile(cells_of(GLASS, (*MIDDLE, PINK)), (12, 12, 1))
    tracemalloc.start()
    try:
        await tissue_of(cells)
        assert tracemalloc.get_traced_memory()[1] < 20 * cells.shape[0] * cells.shape[1]
    finally:
        tracemalloc.stop()


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


def test_more_tiles_than_memory_is_kept_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.ones((30, 20), bool)
    monkeypatch.setattr(tiling, "MOST_TILES", 600)
    assert 600 == len(tissue_tiles(mask, cell=16, size=16, least=0.0))
    monkeypatch.setattr(tiling, "MOST_TILES", 599)
    with pytest.raises(InvalidSlide, match="600 tiles of 16 px lie on tissue; at most 599 are analysed"):
        tissue_tiles(mask, cell=16, size=16, least=0.0)
