"""The lattice of an analysis over a slide."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.tasks.slides import grid as lattice
from inference_server.tasks.slides.grid import choose_grid, coarser, read_all_cells, read_cells
from inference_server.tasks.slides.readers.image import ImageReader, facts_of
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.values import Level, Position, SlideFacts

PICTURE = np.random.default_rng(4).integers(0, 256, (230, 310, 3), np.uint8)


def pyramid(*downsamples: float) -> SlideFacts:
    levels = tuple(
        Level(width=int(40000 / d), height=int(30000 / d), downsample_x=d, downsample_y=d, tile_width=256, tile_height=256)
        for d in downsamples
    )
    return SlideFacts(uri="slide", vendor="", reader="tiff", levels=levels, mpp_x=None, mpp_y=None, objective_power=None)


class OneTile:
    """A slide of a single picture, again and again."""

    def __init__(self, facts: SlideFacts) -> None:
        self.facts = facts
        self._tile = np.zeros((256, 256, 3), np.uint8)

    async def read_tiles(self, level: int, places: Sequence[Position], soon: Sequence[Position] = ()) -> list[NDArray[np.uint8] | None]:
        return [self._tile for _ in places]

    async def close(self) -> None:
        """There is nothing to close."""


def regions_of(pixels: NDArray[np.uint8]) -> Regions:
    return Regions(ImageReader(facts=facts_of("picture", pixels, (None, None)), pixels=pixels), cache_bytes=1 << 26, most_unreadable=0.1)


@pytest.mark.parametrize(
    ("mpp", "level", "step", "result"),
    [
        (0.5, 0, 1.0, 0.5),
        (0.499, 0, 1.0, 0.499),
        (0.2528, 0, 2.0, 0.5056),
        (0.125, 1, 1.0, 0.5),
        (0.11, 1, 0.5 / 0.44, 0.5),
        (0.35, 0, 0.5 / 0.35, 0.5),
        (1.0, 0, 0.5, 0.5),
    ],
)
def test_the_coarsest_level_that_is_fine_enough_is_taken(mpp: float, level: int, step: float, result: float) -> None:
    grid = choose_grid(pyramid(1.0, 4.0, 16.0), (mpp, mpp), 0.5)
    assert (level, pytest.approx(step), pytest.approx(result)) == (grid.level, grid.step_x, grid.mpp_x)


def test_coarser_cells_cover_whole_cells_and_come_from_a_coarser_level() -> None:
    facts = pyramid(1.0, 4.0, 16.0)
    cells = coarser(facts, choose_grid(facts, (0.25, 0.25), 0.5), 16)
    assert (2, 2.0, 32.0, 8.0) == (cells.level, cells.step_x, cells.scale_x, cells.mpp_x)


@pytest.mark.parametrize("mpp", [0.5, 0.25, 0.35, 0.21, 0.03, 1.0])
async def test_cells_are_the_same_wherever_they_are_read_from(mpp: float) -> None:
    regions = regions_of(PICTURE)
    grid = choose_grid(regions.facts, (mpp, mpp), 0.5)
    whole = await read_cells(regions, grid, 0, 0, grid.width, grid.height)
    for x, y, width, height in ((3, 2, 5, 7), (1, 4, 9, 3), (0, 0, 4, 4)):
        width, height = min(width, grid.width - x), min(height, grid.height - y)
        if width > 0 and height > 0:
            np.testing.assert_array_equal(whole[y : y + height, x : x + width], await read_cells(regions, grid, x, y, width, height))


@pytest.mark.parametrize("mpp", [0.25, 0.21, 0.125, 0.03])
@pytest.mark.parametrize("most", [100, 2_000, 30_000])
async def test_cells_are_the_same_in_however_many_pieces_they_are_read(monkeypatch: pytest.MonkeyPatch, mpp: float, most: int) -> None:
    regions = regions_of(PICTURE)
    grid = choose_grid(regions.facts, (mpp, mpp), 0.5)
    corners = [(-3, -2), (0, 0), (grid.width // 2, grid.height // 3), (grid.width, grid.height)]
    whole = await read_all_cells(regions, grid, corners, 11, 7)
    monkeypatch.setattr(lattice, "_MOST_PIXELS", most)
    monkeypatch.setattr(lattice, "_MOST_SUMMED", most // 4)
    np.testing.assert_array_equal(whole, await read_all_cells(regions, grid, corners, 11, 7))


@pytest.mark.parametrize("step", [16, 16.6, 5.3])
async def test_reading_from_a_level_that_is_far_finer_takes_bounded_memory(step: float) -> None:
    """A batch of 16 tiles of 256 px takes 0.8 GB of a level 16 times as fine, and summing one tile of 4,096 px half as much as that."""
    facts = pyramid(1.0)
    regions = Regions(OneTile(facts), cache_bytes=1 << 20, most_unreadable=0.1)
    grid = choose_grid(facts, (0.5, 0.5), 0.5 * step)
    corners = [(x, y) for x in range(0, 1024, 256) for y in range(0, 1024, 256)]
    tracemalloc.start()
    try:
        assert (16, 256, 256, 3) == (await read_all_cells(regions, grid, corners, 256, 256)).shape
        await read_cells(regions, grid, 0, 0, 896, 896)
        assert tracemalloc.get_traced_memory()[1] < 400e6
    finally:
        tracemalloc.stop()


async def test_whole_steps_are_means_of_blocks() -> None:
    regions = regions_of(PICTURE[:200, :300])
    grid = choose_grid(regions.facts, (0.125, 0.125), 0.5)
    expected = np.round(PICTURE[:200, :300].reshape(50, 4, 75, 4, 3).mean(axis=(1, 3)) + 1e-9)
    actual = await read_cells(regions, grid, 0, 0, grid.width, grid.height)
    assert 1 >= np.abs(expected - actual).max()
    assert 0.1 > np.abs(expected - actual).mean()


async def test_a_flat_picture_stays_flat() -> None:
    regions = regions_of(np.full((100, 120, 3), 137, np.uint8))
    for mpp in (0.35, 0.21, 1.0):
        grid = choose_grid(regions.facts, (mpp, mpp), 0.5)
        inside = await read_cells(regions, grid, 0, 0, int(120 / grid.scale_x), int(100 / grid.scale_y))
        assert {137} == set(inside.reshape(-1).tolist())


async def test_means_keep_the_brightness_of_the_picture() -> None:
    regions = regions_of(PICTURE)
    grid = choose_grid(regions.facts, (0.35, 0.35), 0.5)
    inside = await read_cells(regions, grid, 0, 0, int(310 / grid.scale_x), int(230 / grid.scale_y))
    assert pytest.approx(PICTURE.mean(), abs=1.0) == inside.mean()


@pytest.mark.parametrize("mpp", [1.0, 0.35, 0.22, 0.0667, 0.0526])
async def test_cells_with_parts_of_pixels_are_means_by_area_rounded_half_up(mpp: float) -> None:
    regions = regions_of(PICTURE)
    grid = choose_grid(regions.facts, (mpp, mpp), 0.5)
    # Edges lie on whole parts of a pixel, of those of more than eight pixels on whole pixels.
    parts = 64 if grid.step_x < 8 else 1
    width, height = (int(length / grid.step_x) for length in (310, 230))
    actual = await read_cells(regions, grid, 0, 0, width, height)
    random = np.random.default_rng(1)
    for _ in range(50):
        row, column = random.integers(0, height), random.integers(0, width)
        (top, bottom), (left, right) = (
            [int(np.floor((place + side) * grid.step_x * parts + 0.5)) for side in (0, 1)] for place in (row, column)
        )
        down, across = (np.bincount(np.arange(first, end) // parts) for first, end in ((top, bottom), (left, right)))
        weights = np.outer(down, across)[..., None]
        total = (PICTURE[: len(down), : len(across)].astype(np.int64) * weights).sum(axis=(0, 1))
        np.testing.assert_array_equal((total + weights.sum() // 2) // weights.sum(), actual[row, column])
