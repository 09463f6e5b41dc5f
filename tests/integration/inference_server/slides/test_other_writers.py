"""Slides as programs that are no scanner write them: read as they are meant, or refused with what to do."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from inference_server.errors import InvalidSlide
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import SlideLimits
from tests.support.slides.painted import paint, scattered, tiles_of, write_jpeg2000_svs, write_tiff

Pixels = NDArray[np.uint8]
TISSUE = (50, 50, 450, 250)
PICTURE = paint(500, 300, tissue=TISSUE, nuclei=scattered(40, within=TISSUE, apart=14), noise=6)
GREY = np.ascontiguousarray(PICTURE[..., 1])
TILED = {"tile": (256, 256), "metadata": None}
LONG, SHORT = 4, 3


async def whole(path: Path) -> Pixels:
    """All of level 0."""
    storage = Storage(read_roots=(str(path.parent),), write_roots=())
    async with open_slide(storage, str(path), SlideLimits(), Staging(storage, most_bytes=1 << 30)) as reader:
        level = reader.facts.levels[0]
        return await Regions(reader, cache_bytes=0, most_unreadable=0.0).read(0, 0, 0, level.width, level.height)


@pytest.mark.parametrize("compression", [1, 8])
async def test_bytes_whose_first_bit_is_the_lowest_are_turned_round(tmp_path: Path, compression: int) -> None:
    """As `tiffcp -f lsb2msb` writes them: FillOrder 2."""
    tags = [(256, LONG, [500]), (257, LONG, [300]), (258, SHORT, [8, 8, 8]), (259, SHORT, [compression]), (262, SHORT, [2])]
    tags += [(266, SHORT, [2]), (277, SHORT, [3]), (322, LONG, [256]), (323, LONG, [256])]
    packed = [tile.tobytes() if compression == 1 else zlib.compress(tile.tobytes()) for tile in tiles_of(PICTURE, 256)]
    turned = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1), axis=1, bitorder="little")[:, 0]
    path = write_tiff(tmp_path / "slide.tif", [(tags, [turned[np.frombuffer(each, np.uint8)].tobytes() for each in packed])], big=False)
    np.testing.assert_array_equal(PICTURE, await whole(path))


async def test_jpeg_2000_of_another_program_than_aperios_has_the_colours_that_it_says(tmp_path: Path) -> None:
    """By 33003 Aperio means Y, Cb, Cr, and tifffile and Bio-Formats any."""
    path = write_jpeg2000_svs(tmp_path / "slide.tif", [PICTURE], compression=33003, aperio=False)
    np.testing.assert_array_equal(PICTURE, await whole(path))


async def test_a_mask_beside_a_grey_slide_is_no_channel_of_it(tmp_path: Path) -> None:
    tags = [(256, LONG, [500]), (257, LONG, [300]), (258, SHORT, [8]), (259, SHORT, [1]), (262, SHORT, [1]), (277, SHORT, [1])]
    tags += [(322, LONG, [256]), (323, LONG, [256])]
    tiles = [each.tobytes() for each in tiles_of(GREY[..., None], 256)]
    path = write_tiff(tmp_path / "slide.tif", [([(254, LONG, [kind]), *tags], tiles) for kind in (0, 4)], big=False)
    np.testing.assert_array_equal(GREY, (await whole(path))[..., 0])


async def test_channels_in_images_of_their_own_are_refused_without_ome_too(tmp_path: Path) -> None:
    """Nor is the first of them, tiled or in strips, taken for a grey slide."""
    channels = np.stack([GREY, GREY // 2, GREY // 3])
    for name, stored in (("tiled.tif", {"tile": (256, 256)}), ("strips.tif", {})):
        tifffile.imwrite(tmp_path / name, channels, photometric="minisblack", **stored)
        with pytest.raises(InvalidSlide, match=f"{name} keeps its 3 channels as separate images; expected the colours of a pixel together"):
            await whole(tmp_path / name)


async def test_four_channels_in_grey_are_not_taken_for_colours_and_opacity(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, np.stack([GREY] * 4), photometric="minisblack", planarconfig="separate", **TILED)
    with pytest.raises(InvalidSlide, match=r"4 samples of \[8, 8, 8, 8\] bits, photometric 1 \(grey\); expected 8-bit RGB"):
        await whole(path)


async def test_values_with_a_sign_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURE.view(np.int8), photometric="rgb", **TILED)
    with pytest.raises(InvalidSlide, match="bits with a sign"):
        await whole(path)


@pytest.mark.parametrize(("compression", "photometric"), [(7, 6), (33003, 2)])
async def test_planes_that_are_pictures_of_their_own_are_refused_and_not_told_to_be_damaged(
    tmp_path: Path, compression: int, photometric: int
) -> None:
    """As Bio-Formats' bfconvert writes JPEG and JPEG 2000: planes of R, G, B, of which the former says that they are Y, Cb, Cr."""
    path = tmp_path / "slide.ome.tif"
    tags = [(256, LONG, [500]), (257, LONG, [300]), (258, SHORT, [8, 8, 8]), (259, SHORT, [compression]), (262, SHORT, [photometric])]
    tags += [(277, SHORT, [3]), (284, SHORT, [2]), (322, LONG, [256]), (323, LONG, [256])]
    files = []
    for channel in range(3):
        for tile in tiles_of(PICTURE, 256):
            Image.fromarray(tile[..., channel]).save(tmp_path / "tile.jpg")
            files.append((tmp_path / "tile.jpg").read_bytes())
    write_tiff(path, [(tags, files)], big=False)
    with pytest.raises(InvalidSlide, match=f"each compressed by method {compression} as a picture of its own.*interleaved RGB"):
        await whole(path)


async def test_a_slide_without_tiles_of_a_compression_that_only_openslide_reads_is_not_taken_for_a_blank_one(tmp_path: Path) -> None:
    """As libvips leaves it where it fails in compressing."""
    path = tmp_path / "slide.tif"
    tags = [(256, LONG, [256]), (257, LONG, [256]), (258, SHORT, [8, 8, 8]), (259, SHORT, [32773]), (262, SHORT, [2]), (277, SHORT, [3])]
    write_tiff(path, [([*tags, (322, LONG, [256]), (323, LONG, [256])], [b""])], big=False)
    with pytest.raises(InvalidSlide, match="has none of its tiles: its writer did not finish"):
        await whole(path)


async def test_a_compression_is_told_by_its_name_and_how_to_mend_it(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb", **TILED)
    stored = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags[259].valueoffset
    stored[place : place + 2] = struct.pack("<H", 50001)
    path.write_bytes(stored)
    with pytest.raises(InvalidSlide, match=r"50001, WebP\). Convert it to a tiled pyramid: vips"):
        await whole(path)


async def test_what_is_whole_and_of_another_kind_is_not_told_to_be_damaged_alone(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURE.astype(np.float32), photometric="rgb")
    with pytest.raises(InvalidSlide, match=r"such as floating point.*export it as 8-bit RGB"):
        await whole(path)
