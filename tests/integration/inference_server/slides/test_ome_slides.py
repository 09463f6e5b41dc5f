"""Slides in OME-TIFF: which image is the slide, its levels, and its resolution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from inference_server.errors import InvalidSlide
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.values import SlideFacts
from tests.support.slides.opened_slides import facts_of, open_at
from tests.support.slides.painted import paint, scattered, write_jpeg_tiff

WIDTH, HEIGHT = 1000, 700


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    tissue = (100, 80, 900, 650)
    return paint(WIDTH, HEIGHT, tissue=tissue, nuclei=scattered(200, within=tissue, apart=14), noise=6)


async def opened(path: Path) -> tuple[SlideFacts, list[NDArray[np.uint8]]]:
    """What a slide is, and the pixels of its levels."""
    async with open_at(path) as reader:
        regions, levels = Regions(reader, cache_bytes=1 << 24, most_unreadable=0.0), enumerate(reader.facts.levels)
        return reader.facts, [await regions.read(number, 0, 0, level.width, level.height) for number, level in levels]


async def test_channels_that_ome_keeps_apart_are_refused(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "channels.ome.tif"
    tifffile.imwrite(path, np.moveaxis(picture, -1, 0), tile=(256, 256), photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(InvalidSlide, match="its 3 channels as separate images"):
        await facts_of(path)


async def test_ome_headers_tell_resolution_in_any_unit(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "slide.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", metadata=metadata)
    facts = await facts_of(path)
    assert (0.25, 0.25) == (facts.mpp_x, facts.mpp_y)


def write_ome(path: Path, images: Sequence[tuple[NDArray[np.uint8], dict[str, Any]]], **options: Any) -> Path:
    """Images one after the other, each with a level below it."""
    tiles = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"} | options
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for pixels, metadata in images:
            tiff.write(pixels, subifds=1, metadata={"axes": "YXS", **metadata}, **tiles)
            tiff.write(np.ascontiguousarray(pixels[::2, ::2]), subfiletype=1, **tiles)
    return path


# Of the slide's proportions, so that it might be one of its levels.
MACRO = np.full((300, 429, 3), 120, np.uint8)
SLIDE_MPP = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}


@pytest.mark.parametrize(
    "order", [("slide",), ("macro", "slide"), ("slide", "macro"), ("macro", "label", "slide"), ("label", "slide", "macro")], ids="-".join
)
async def test_the_slide_of_an_ome_tiff_is_its_largest_image_with_its_own_resolution(
    tmp_path: Path, picture: NDArray[np.uint8], order: tuple[str, ...]
) -> None:
    images = {
        "slide": (picture, SLIDE_MPP),
        "macro": (MACRO, {"Name": "macro > x", "PhysicalSizeX": 40.0, "PhysicalSizeY": 40.0}),
        "label": (np.full((300, 300, 3), 60, np.uint8), {"Name": "label"}),
    }
    path = write_ome(tmp_path / "slide.ome.tif", [images[name] for name in order])
    facts, (whole, half) = await opened(path)
    assert ("tiff", 0.5, 0.5) == (facts.reader, facts.mpp_x, facts.mpp_y)
    np.testing.assert_array_equal(picture, whole)
    np.testing.assert_array_equal(picture[::2, ::2], half)


async def test_a_slide_may_follow_a_macro_image_without_tiles(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif", ome=True) as tiff:
        tiff.write(MACRO, photometric="rgb", metadata={"axes": "YXS", "Name": "macro"})
        tiff.write(picture, tile=(256, 256), photometric="rgb", metadata={"axes": "YXS", **SLIDE_MPP})
    facts, (whole,) = await opened(tmp_path / "slide.ome.tif")
    assert ("tiff", 0.5) == (facts.reader, facts.mpp_x)
    np.testing.assert_array_equal(picture, whole)


async def test_levels_of_the_only_image_may_stand_in_the_files_chain(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    """As libvips writes pyramids, which keeps a slide's OME-XML."""
    told = f'<OME><Image><Pixels SizeX="{WIDTH}" SizeY="{HEIGHT}" SizeC="3" PhysicalSizeX="0.5"><TiffData IFD="0"/></Pixels></Image></OME>'
    path = write_jpeg_tiff(tmp_path / "slide.tif", [picture, picture[::2, ::2], picture[::4, ::4]], description=told)
    facts, levels = await opened(path)
    assert (0.5, [1.0, 2.0, 4.0]) == (facts.mpp_x, [level.downsample for level in facts.levels])
    assert (175, 250, 3) == levels[2].shape


async def test_the_resolution_of_another_image_is_not_the_slides(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = write_ome(tmp_path / "slide.ome.tif", [(MACRO, SLIDE_MPP), (picture, {})])
    assert (None, None) == ((facts := await facts_of(path)).mpp_x, facts.mpp_y)


async def test_a_slide_after_others_that_this_reader_cannot_read_is_refused_instead_of_the_first(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    path = write_ome(tmp_path / "slide.ome.tif", [(MACRO, {}), (picture, SLIDE_MPP)])
    with tifffile.TiffFile(path, mode="r+b") as file:
        # PackBits, which OpenSlide alone reads.
        file.pages[1].tags["Compression"].overwrite(32773, dtype="H")
    with pytest.raises(InvalidSlide, match=r"its slide comes after other images.*Export it alone"):
        await facts_of(path)
