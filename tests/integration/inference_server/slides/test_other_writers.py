"""Slides as programs that are no scanner write them: read as they are meant, or refused with what to do."""

from __future__ import annotations

import asyncio
import io
import lzma
import shlex
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from numpy.typing import NDArray
from PIL import Image

from inference_server.errors import InvalidSlide
from inference_server.tasks.slides.readers.port import RECODE
from tests.support.slides.opened_slides import facts_of, whole
from tests.support.slides.painted import paint, scattered, tiles_of, write_jpeg2000_svs, write_tiff

Pixels = NDArray[np.uint8]
TISSUE = (50, 50, 450, 250)
PICTURE = paint(500, 300, tissue=TISSUE, nuclei=scattered(40, within=TISSUE, apart=14), noise=6)
GREY = np.ascontiguousarray(PICTURE[..., 1])
TILED = {"tile": (256, 256), "metadata": None}
LONG, SHORT = 4, 3


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


def recompressed(path: Path, method: int) -> Path:
    """The file, whose first image tells another compression than it has."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(method, dtype="H")
    return path


@pytest.mark.parametrize(("method", "name"), [(34887, "LERC"), (50002, "JPEG XL")])
async def test_a_compression_is_told_by_its_name_and_by_a_command_that_mends_it(tmp_path: Path, method: int, name: str) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb", **TILED)
    with pytest.raises(InvalidSlide, match=rf"{method}, {name}\). Store it anew by tifffile with imagecodecs") as refused:
        await whole(recompressed(path, method))
    tifffile.imwrite(tmp_path / "in.tif", PICTURE, photometric="rgb", resolution=(20000, 20000), resolutionunit=3, **TILED)
    command = str(refused.value)[str(refused.value).index("python -c ") :]
    await asyncio.to_thread(subprocess.run, [sys.executable, *shlex.split(command)[1:]], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(PICTURE, await whole(tmp_path / "out.tif"))
    assert 0.5 == (await facts_of(tmp_path / "out.tif")).mpp_x


@pytest.mark.parametrize("opacity", ["assocalpha", "unassalpha", "unspecified"])
async def test_the_command_that_mends_a_compression_keeps_the_kind_of_opacity(tmp_path: Path, opacity: str) -> None:
    """By which colours are mixed with white, or have been."""
    see_through = np.dstack([PICTURE // 2, np.full_like(GREY, 128)])
    tifffile.imwrite(tmp_path / "in.tif", see_through, photometric="rgb", extrasamples=[opacity], **TILED)
    command = RECODE[RECODE.index("python -c ") :]
    await asyncio.to_thread(subprocess.run, [sys.executable, *shlex.split(command)[1:]], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(await whole(tmp_path / "in.tif"), await whole(tmp_path / "out.tif"))


async def test_jpeg_2000_whose_colours_the_file_does_not_tell_is_refused(tmp_path: Path) -> None:
    """By 33004 libvips means Y, Cb, Cr, and tells R, G, B as those do who mean them."""
    path = write_jpeg2000_svs(tmp_path / "slide.tif", [PICTURE], compression=33005, aperio=False)
    with pytest.raises(InvalidSlide, match=r"its colours cannot be told. If libvips wrote it, convert it to a tiled pyramid: vips"):
        await whole(recompressed(path, 33004))


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("bands", [3, 4])
async def test_webp_in_tiles_is_what_its_writer_reads(tmp_path: Path, lossless: bool, bands: int) -> None:
    opaque = np.dstack([PICTURE, np.full_like(GREY, 255)])
    path = tmp_path / "slide.tif"
    stored = pyvips.Image.new_from_array(opaque if bands == 4 else PICTURE).copy(interpretation="srgb")
    stored.tiffsave(str(path), compression="webp", lossless=lossless, tile=True, tile_width=256, tile_height=256, pyramid=True)
    pixels = await whole(path)
    np.testing.assert_array_equal(pyvips.Image.new_from_file(str(path)).numpy()[..., :3], pixels)
    assert lossless == np.array_equal(PICTURE, pixels)
    assert ("tiff", [1.0, 2.0]) == ((facts := await facts_of(path)).reader, [level.downsample for level in facts.levels])


@pytest.mark.parametrize("kind", ["VP8 ", "VP8L", "VP8X"])
async def test_a_webp_that_claims_another_size_than_its_tile_is_damaged(tmp_path: Path, kind: str) -> None:
    tile = io.BytesIO()
    Image.new("RGB", (256, 256)).save(tile, "WEBP", lossless=kind == "VP8L", **({"exif": b"Exif"} if kind == "VP8X" else {}))
    data = bytearray(tile.getvalue())
    assert kind.encode() == data[12:16]
    start, claimed = {"VP8 ": (26, b"\xff\x3f\xff\x3f"), "VP8L": (21, b"\xff\xff\xff\x0f"), "VP8X": (24, b"\xfe\x3f\x00" * 2)}[kind]
    data[start : start + len(claimed)] = claimed
    tags = [(256, LONG, [256]), (257, LONG, [256]), (258, SHORT, [8, 8, 8]), (259, SHORT, [50001]), (262, SHORT, [2]), (277, SHORT, [3])]
    tags += [(322, LONG, [256]), (323, LONG, [256])]
    path = write_tiff(tmp_path / "slide.tif", [(tags, [bytes(data)])], big=False)
    with pytest.raises(InvalidSlide, match="1 of the 1 stored tiles"):
        await whole(path)


@pytest.mark.parametrize("planar", [False, True])
async def test_lzma_in_tiles_is_what_was_written(tmp_path: Path, planar: bool) -> None:
    tags = [(256, LONG, [500]), (257, LONG, [300]), (258, SHORT, [8, 8, 8]), (259, SHORT, [34925]), (262, SHORT, [2])]
    tags += [(277, SHORT, [3]), (284, SHORT, [2 if planar else 1]), (322, LONG, [256]), (323, LONG, [256])]
    tiles = list(tiles_of(PICTURE, 256))
    parts = [tile[..., colour] for colour in range(3) for tile in tiles] if planar else tiles
    path = write_tiff(tmp_path / "slide.tif", [(tags, [lzma.compress(part.tobytes()) for part in parts])], big=False)
    np.testing.assert_array_equal(PICTURE, await whole(path))


async def test_what_is_whole_and_of_another_kind_is_not_told_to_be_damaged_alone(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, PICTURE.astype(np.float32), photometric="rgb")
    with pytest.raises(InvalidSlide, match=r"such as floating point.*export it with one of them as 8-bit RGB"):
        await whole(path)
