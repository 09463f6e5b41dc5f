"""Slides of which a small level is damaged, where one stored tile shows much of the slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from inference_server.errors import InvalidSlide
from inference_server.storage.storage import Storage
from inference_server.tasks.slides import overview
from inference_server.tasks.slides.grid import choose_grid, coarser
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import SlideLimits
from tests.support.slides.painted import paint, scattered, write_jpeg_tiff

WIDTH, HEIGHT = 2000, 1500
TISSUE = (150, 200, 1850, 1300)
DESCRIPTION = "Aperio Image Library v11\r\n|AppMag = 20|MPP = 0.5"
# Levels of 1, 2, 4 and 8 times 0.5 µm, in tiles of 128 px: the smallest, from which tissue is found, has four.
SMALLEST = 3


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    picture = paint(WIDTH, HEIGHT, tissue=TISSUE, nuclei=scattered(600, within=TISSUE, apart=20), noise=6)
    levels = [picture]
    for _ in range(SMALLEST):
        levels.append(halved(levels[-1]))
    path = tmp_path_factory.mktemp("sound") / "slide.svs"
    return write_jpeg_tiff(path, levels, description=DESCRIPTION, tile=128, rgb_components=True, quality=98)


def halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    padded = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge").astype(np.uint16)
    return ((padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2] + 2) // 4).astype(np.uint8)


def spoiled(sound: Path, path: Path, tiles: dict[int, list[int]]) -> Path:
    """With other bytes in place of some tiles, by level."""
    content = bytearray(sound.read_bytes())
    with tifffile.TiffFile(sound) as file:
        for level, numbers in tiles.items():
            page: Any = file.pages[level]
            for number in numbers:
                start, length = page.dataoffsets[number], page.databytecounts[number]
                content[start : start + length] = bytes(length)
    path.write_bytes(content)
    return path


def below(level: int, quarter: int = 0) -> list[int]:
    """Numbers of a level's tiles that show what one tile of the smallest does."""
    times = 2 ** (SMALLEST - level)
    columns = -(-WIDTH // 2**level // 128)
    top, left = (place * times for place in divmod(quarter, 2))
    return [row * columns + column for row in range(top, top + times) for column in range(left, left + times)]


async def cells_of(path: Path, factor: int) -> tuple[NDArray[np.uint8], set[int]]:
    """Means of so many pixels along each axis, and the levels of which tiles are damaged."""
    storage = Storage(read_roots=(str(path.parent),), write_roots=())
    async with open_slide(storage, str(path), SlideLimits(), Staging(storage, most_bytes=1 << 30)) as reader:
        regions = Regions(reader, cache_bytes=1 << 24, most_unreadable=1.0)
        grid = coarser(reader.facts, choose_grid(reader.facts, (0.5, 0.5), 0.5), factor)
        return await overview.read(regions, grid), {place[0] for place in regions.unreadable}


@pytest.mark.parametrize("factor", [4, 8, 11, 16])
async def test_what_a_damaged_tile_of_a_small_level_shows_is_read_from_the_next_finer_sound_one(
    sound: Path, tmp_path: Path, factor: int
) -> None:
    expected, _ = await cells_of(sound, factor)
    found, levels = await cells_of(spoiled(sound, tmp_path / "slide.svs", {3: [0], 2: [1, 4]}), factor)
    assert {4: {2}}.get(factor, {3, 2}) == levels
    # Means at sharp edges differ with the level; white would differ from tissue by 115.
    assert np.abs(found.astype(int) - expected).max() <= 60
    assert np.abs(found.astype(int) - expected).mean() < 0.5


async def test_what_no_level_shows_is_white_and_nothing_beside_it(sound: Path, tmp_path: Path) -> None:
    slide = spoiled(sound, tmp_path / "slide.svs", {3: [0], 2: below(2), 1: below(1), 0: [17]})
    expected, _ = await cells_of(sound, 16)
    found, levels = await cells_of(slide, 16)
    # The tile of level 0 in the second row and column.
    blank = np.zeros(found.shape[:2], np.bool_)
    blank[8:16, 8:16] = True
    assert (255, {0, 1, 2, 3}) == (found[blank].min(), levels)
    assert np.abs(found[~blank].astype(int) - expected[~blank]).max() <= 12


async def test_a_damaged_tile_of_a_small_level_hides_no_tissue_and_fails_no_slide(analyses: Any, sound: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.svs"
    whole.write_bytes(sound.read_bytes())
    expected = await analyses.run(whole)
    found = await analyses.run(spoiled(sound, tmp_path / "slide.svs", {3: [0, 3]}))
    assert pytest.approx(expected.report["tissue"]["area_mm2"], rel=0.002) == found.report["tissue"]["area_mm2"]
    many = "nuclear_candidates"
    assert pytest.approx(expected.report["measures"][many], rel=0.01) == found.report["measures"][many]
    assert [(3, 0, 0), (3, 1, 1)] == [(each["level"], each["column"], each["row"]) for each in found.report["unreadable"]]
    assert 2 == found.result.tiles_skipped


async def test_more_than_a_tenth_of_all_tiles_that_were_read_fails_the_slide(analyses: Any, sound: Path, tmp_path: Path) -> None:
    read = {3: [0, 3], 0: range(40, 55)}
    assert 17 == (await analyses.run(spoiled(sound, tmp_path / "few.svs", read))).result.tiles_skipped
    with pytest.raises(InvalidSlide, match=r"\d+ of the \d+ stored tiles that were read cannot be decoded, and at most 10% may be"):
        await analyses.run(spoiled(sound, tmp_path / "many.svs", {3: [0, 3], 0: range(40, 80)}))


async def test_a_slide_fails_as_soon_as_no_more_tiles_could_make_up_for_the_damaged_ones(sound: Path, tmp_path: Path) -> None:
    slide = spoiled(sound, tmp_path / "slide.svs", {0: list(range(192))})
    storage = Storage(read_roots=(str(tmp_path),), write_roots=())
    async with open_slide(storage, str(slide), SlideLimits(), Staging(storage, most_bytes=1 << 30)) as reader:
        regions = Regions(reader, cache_bytes=1 << 24, most_unreadable=0.1)
        # 40 of the 192 tiles of level 0; the levels below have 64.
        boxes = np.array([(x, y, x + 128, y + 128) for x in range(0, 1024, 128) for y in range(0, 640, 128)])
        regions.expect(0, boxes)
        for x, y, _, _ in boxes[:10]:
            await regions.read(0, x, y, 128, 128)
        x, y, _, _ = boxes[10]
        with pytest.raises(InvalidSlide, match="11 of the 11 stored tiles"):
            await regions.read(0, x, y, 128, 128)


async def test_a_small_slide_does_not_fail_for_a_tile_that_a_finer_level_makes_up_for(analyses: Any, tmp_path: Path) -> None:
    # Levels of 16, 4 and 1 tiles, of which a few of the first are tissue: the last one is more than a tenth of those that are read.
    levels = [paint(512, 512, tissue=(20, 20, 120, 120), nuclei=scattered(8, within=(30, 30, 110, 110), apart=25), noise=6)]
    for _ in range(2):
        levels.append(halved(levels[-1]))
    sound = write_jpeg_tiff(tmp_path / "sound.svs", levels, description=DESCRIPTION, tile=128, rgb_components=True, quality=98)
    expected = await analyses.run(sound, tile_size=64)
    slide = spoiled(sound, tmp_path / "slide.svs", {2: [0]})
    found = await analyses.run(slide, tile_size=64, checkpoints=True)

    assert pytest.approx(expected.report["tissue"]["area_mm2"], rel=0.01) == found.report["tissue"]["area_mm2"]
    assert [(2, 0, 0)] == [(each["level"], each["column"], each["row"]) for each in found.report["unreadable"]]
    assert 1 == found.result.tiles_skipped
    # Whoever goes on from there judges it in the same way.
    parts = tuple(str(path) for path in sorted((found.folder / "checkpoint").iterdir()))
    assert parts
    resumed = await analyses.run(slide, tile_size=64, checkpoints=True, resume_uris=parts)
    assert (found.result.tiles_analyzed, 1) == (resumed.result.tiles_resumed, resumed.result.tiles_skipped)
    # What is analysed itself is not made up for.
    with pytest.raises(InvalidSlide, match="1 of the"):
        await analyses.run(spoiled(sound, tmp_path / "worse.svs", {0: [0]}), tile_size=64)
