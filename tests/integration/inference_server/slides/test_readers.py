"""Readers on files of each kind, compared with OpenSlide and with the pixels that were written."""

from __future__ import annotations

import asyncio
import contextlib
import io
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from inference_server.errors import AccessDenied, InvalidSlide, NotFound
from inference_server.storage.ranges import read_scattered
from inference_server.tasks.slides.readers import ome
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.values import SlideLimits
from inference_server.threads import usable_cores
from tests.support.slides.opened_slides import facts_of, open_at, whole
from tests.support.slides.painted import (
    jpeg_tile,
    level_tags,
    paint,
    scattered,
    tiles_of,
    write_huge_striped_tiff,
    write_jpeg_tiff,
    write_lzw_tiff,
    write_svs,
    write_tiff,
    write_zstd_tiff,
)

WIDTH, HEIGHT = 1000, 700
LIMITS = SlideLimits()


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    tissue = (100, 80, 900, 650)
    return paint(WIDTH, HEIGHT, tissue=tissue, nuclei=scattered(200, within=tissue, apart=14), noise=6)


async def read(path: Path, x: int, y: int, width: int, height: int, *, level: int = 0) -> NDArray[np.uint8]:
    async with open_at(path) as reader:
        return await Regions(reader, cache_bytes=1 << 24, most_unreadable=0.1).read(level, x, y, width, height)


@pytest.mark.parametrize("rgb_components", [True, False], ids=["rgb", "ycbcr"])
@pytest.mark.parametrize("shared_tables", [True, False], ids=["tables_in_tag", "tables_in_tiles"])
async def test_jpeg_tiles_equal_openslide_on_random_regions(
    tmp_path: Path, picture: NDArray[np.uint8], rgb_components: bool, shared_tables: bool
) -> None:
    path = write_jpeg_tiff(
        tmp_path / "slide.tif",
        [picture, picture[::2, ::2]],
        rgb_components=rgb_components,
        shared_tables=shared_tables,
        resolution=(20000, 20000),
    )
    peer = openslide.OpenSlide(path)
    random = np.random.default_rng(0)
    async with open_at(path) as reader:
        assert ("tiff", 2) == (reader.facts.reader, len(reader.facts.levels))
        regions = Regions(reader, cache_bytes=1 << 24, most_unreadable=0.1)
        for _ in range(100):
            level = int(random.integers(0, 2))
            scale = 2**level
            x, y = int(random.integers(0, WIDTH // scale - 90)), int(random.integers(0, HEIGHT // scale - 70))
            expected = np.asarray(peer.read_region((x * scale, y * scale), level, (90, 70)).convert("RGB"))
            np.testing.assert_array_equal(expected, await regions.read(level, x, y, 90, 70))


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
async def test_jpeg_tiles_of_fewer_colours_than_pixels_equal_openslide(
    tmp_path: Path, picture: NDArray[np.uint8], subsampling: str
) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", [picture], subsampling=subsampling, resolution=(20000, 20000))
    await check_against_openslide(path)


JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
ADOBE_RGB, ADOBE_YCC = (b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform]) for transform in (0, 1))
COMMENT = b"\xff\xfe\x00\x06made"


@pytest.mark.parametrize("rgb_components", [True, False], ids=["rgb", "ycbcr"])
@pytest.mark.parametrize(
    "markers",
    [b"", JFIF, ADOBE_RGB, ADOBE_YCC, JFIF + ADOBE_YCC, ADOBE_RGB + JFIF, COMMENT + JFIF + ADOBE_RGB],
    ids=["none", "jfif", "adobe_rgb", "adobe_ycc", "jfif_adobe_ycc", "adobe_rgb_jfif", "comment_jfif_adobe_rgb"],
)
async def test_what_a_tiles_components_are_is_told_by_the_file_and_not_by_the_tile(
    tmp_path: Path, picture: NDArray[np.uint8], rgb_components: bool, markers: bytes
) -> None:
    def tile(pixels: NDArray[np.uint8]) -> bytes:
        whole = jpeg_tile(pixels, rgb_components=rgb_components, quality=90)
        length = 2 + int.from_bytes(whole[4:6], "big") if whole[2:4] == JFIF[:2] else 0
        return whole[:2] + markers + whole[2 + length :]

    tags = level_tags(WIDTH, HEIGHT, number=0, tile=256, compression=7, photometric=2 if rgb_components else 6)
    await check_against_openslide(write_tiff(tmp_path / "slide.tif", [(tags, map(tile, tiles_of(picture, 256)))], big=False))


LEFT_OVER = b"\x00\xff\x00" * 20 + b"\xff\xd9"


@pytest.mark.parametrize("left_over", [LEFT_OVER, LEFT_OVER[:-2]], ids=["with an end", "without"])
async def test_bytes_between_a_tiles_last_pixel_and_its_end_are_passed_over_as_openslide_does(
    tmp_path: Path, picture: NDArray[np.uint8], left_over: bytes
) -> None:
    tags = level_tags(WIDTH, HEIGHT, number=0, tile=256, compression=7, photometric=2)
    tiles = (jpeg_tile(each, rgb_components=True, quality=90)[:-2] + left_over for each in tiles_of(picture, 256))
    await check_against_openslide(write_tiff(tmp_path / "slide.tif", [(tags, tiles)], big=False))


def in_several_scans(tile: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(tile)).save(file, "JPEG", progressive=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tile: tile[: len(tile) // 2],
        lambda tile: tile[:-2],
        lambda tile: tile[: len(tile) // 2] + b"\xff\xd9",
        lambda tile: tile[: len(tile) // 2] + b"\x00" * 200 + LEFT_OVER,
        lambda tile: tile.replace(b"\xff\xc4", b"\x00\x00\xff\xc4", 1)[:-2] + LEFT_OVER,
        lambda tile: in_several_scans(tile)[:-2] + LEFT_OVER,
    ],
    ids=["cut", "no end", "too short", "no code", "bytes before its tables", "bytes after several scans"],
)
async def test_a_tile_with_any_other_damage_counts_as_such(
    tmp_path: Path, picture: NDArray[np.uint8], spoil: Callable[[bytes], bytes]
) -> None:
    tags = level_tags(WIDTH, HEIGHT, number=0, tile=256, compression=7, photometric=2)
    tiles = [jpeg_tile(each, rgb_components=True, quality=90) for each in tiles_of(picture, 256)]
    tiles[5] = spoil(tiles[5])
    path = write_tiff(tmp_path / "slide.tif", [(tags, tiles)], big=False)
    with pytest.raises(openslide.OpenSlideError):
        openslide.OpenSlide(path).read_region((256, 256), 0, (256, 256))
    async with open_at(path) as reader:
        regions = Regions(reader, cache_bytes=1 << 24, most_unreadable=0.1)
        pixels = await regions.read(0, 0, 0, WIDTH, HEIGHT)
    assert ({(0, 1, 1)}, 255) == (regions.unreadable, pixels[256:512, 256:512].min())


async def check_against_openslide(path: Path, *, by: str = "tiff") -> None:
    expected = np.asarray(openslide.OpenSlide(path).read_region((0, 0), 0, (WIDTH, HEIGHT)).convert("RGB"))
    async with open_at(path) as reader:
        assert by == reader.facts.reader
        regions = Regions(reader, cache_bytes=1 << 24, most_unreadable=0.0)
        np.testing.assert_array_equal(expected, await regions.read(0, 0, 0, WIDTH, HEIGHT))


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("write", [write_lzw_tiff, write_zstd_tiff])
async def test_packed_tiles_are_what_was_written(
    tmp_path: Path, picture: NDArray[np.uint8], write: Callable[..., Path], predictor: bool
) -> None:
    path = write(tmp_path / "slide.tif", picture, predictor=predictor)
    assert "tiff" == (await facts_of(path)).reader
    np.testing.assert_array_equal(picture, await read(path, 0, 0, WIDTH, HEIGHT))


@pytest.mark.parametrize(
    "written",
    [
        {"photometric": "rgb", "planarconfig": "separate", "compression": "deflate", "predictor": True},
        {"photometric": "ycbcr", "subsampling": (1, 1), "compression": "deflate"},
        {"photometric": "ycbcr", "subsampling": (1, 1)},
    ],
    ids=["colours apart by differences", "brightness and colour, deflated", "brightness and colour, as they are"],
)
async def test_colours_that_only_openslide_reads_right_are_left_to_it(
    tmp_path: Path, picture: NDArray[np.uint8], written: dict[str, Any]
) -> None:
    path = tmp_path / "slide.tif"
    pixels = np.moveaxis(picture, -1, 0) if "planarconfig" in written else picture
    tifffile.imwrite(path, pixels, tile=(128, 128), resolution=(20000, 20000), resolutionunit="CENTIMETER", **written)
    await check_against_openslide(path, by="openslide")


async def test_resolution_without_a_unit_is_by_the_inch(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture, tile=(128, 128), photometric="rgb", resolution=(50800, 50800), resolutionunit="CENTIMETER")
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags["ResolutionUnit"].offset
    content = bytearray(path.read_bytes())
    # Another tag in its place, which nobody reads.
    content[place : place + 2] = (297).to_bytes(2, "little")
    path.write_bytes(content)
    assert (0.5, 0.5) == ((facts := await facts_of(path)).mpp_x, facts.mpp_y)


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
async def test_opacity_is_taken_as_it_was_stored(tmp_path: Path, picture: NDArray[np.uint8], extra: str) -> None:
    path, opacity = tmp_path / "slide.tif", np.broadcast_to(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, WIDTH))
    colours = picture if extra == "unassalpha" else (picture * (opacity[..., None] / 255)).astype(np.uint8)
    data = np.dstack([colours, opacity])
    tifffile.imwrite(path, data, tile=(256, 256), photometric="rgb", extrasamples=[extra], compression="zlib")
    peer = openslide.OpenSlide(path).read_region((0, 0), 0, (WIDTH, HEIGHT))
    white = Image.alpha_composite(Image.new("RGBA", peer.size, (255, 255, 255, 255)), peer).convert("RGB")
    # OpenSlide rounds twice.
    assert np.abs(np.asarray(white).astype(int) - await read(path, 0, 0, WIDTH, HEIGHT)).max() <= 1


@pytest.mark.parametrize("kind", ["grey", "white_is_zero", "opacity", "big_endian", "big_endian_bigtiff"])
async def test_other_ways_to_store_pixels_are_read_too(tmp_path: Path, picture: NDArray[np.uint8], kind: str) -> None:
    grey, expected = np.ascontiguousarray(picture[..., 1]), picture
    data, options = {
        "grey": (grey, {"photometric": "minisblack"}),
        "white_is_zero": (255 - grey, {"photometric": "miniswhite"}),
        "opacity": (np.dstack([picture, np.full_like(grey, 255)]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        "big_endian": (picture, {"photometric": "rgb", "byteorder": ">"}),
        "big_endian_bigtiff": (picture, {"photometric": "rgb", "byteorder": ">", "bigtiff": True}),
    }[kind]
    if data.ndim == 2:
        expected = np.repeat(grey[..., None], 3, axis=2)
    tifffile.imwrite(tmp_path / "slide.tif", data, tile=(256, 256), compression="zlib", **options)
    np.testing.assert_array_equal(expected, await read(tmp_path / "slide.tif", 0, 0, WIDTH, HEIGHT))


async def test_tiles_beyond_four_gibibytes_are_read(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", [picture], bigtiff=True, tile=512)
    expected = await read(path, 0, 0, WIDTH, HEIGHT)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages.first
        places = [(5 << 30) + start for start in page.dataoffsets]
        for start, place, count in zip(page.dataoffsets, places, page.databytecounts, strict=True):
            tiff.filehandle.seek(start)
            tile = tiff.filehandle.read(count)
            # What lies between takes no room on the disk.
            tiff.filehandle.seek(place)
            tiff.filehandle.write(tile)
        page.tags["TileOffsets"].overwrite(places)
    np.testing.assert_array_equal(expected, await read(path, 0, 0, WIDTH, HEIGHT))


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("predictor", [False, True])
async def test_deflate_tiles_are_what_was_written(tmp_path: Path, picture: NDArray[np.uint8], bigtiff: bool, predictor: bool) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", compression="zlib", predictor=predictor, bigtiff=bigtiff)
    np.testing.assert_array_equal(picture, await read(path, 0, 0, WIDTH, HEIGHT))


@pytest.mark.parametrize("planar", ["contig", "separate"])
async def test_uncompressed_tiles_are_what_was_written(tmp_path: Path, picture: NDArray[np.uint8], planar: str) -> None:
    path = tmp_path / "slide.tif"
    written = picture if planar == "contig" else np.moveaxis(picture, -1, 0)
    tifffile.imwrite(path, written, tile=(256, 256), photometric="rgb", planarconfig=planar)
    np.testing.assert_array_equal(picture, await read(path, 0, 0, WIDTH, HEIGHT))


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
async def test_images_without_tiles_are_what_was_written(tmp_path: Path, picture: NDArray[np.uint8], name: str) -> None:
    path = tmp_path / name
    Image.fromarray(picture).save(path)
    np.testing.assert_array_equal(picture, await read(path, 0, 0, WIDTH, HEIGHT))


async def test_aperio_headers_tell_resolution_and_magnification(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    facts = await facts_of(write_svs(tmp_path / "slide.svs", picture, mpp=0.2525))
    assert ("aperio", 0.2525, 0.2525, 20.0) == (facts.vendor, facts.mpp_x, facts.mpp_y, facts.objective_power)


async def test_resolution_of_a_printed_page_counts_as_none(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", resolution=(72, 72), resolutionunit="INCH")
    assert (None, None) == ((await facts_of(path)).mpp_x, (await facts_of(path)).mpp_y)


@pytest.mark.parametrize("name", ["slide.png", "slide.jpg", "slide.tif"])
async def test_a_picture_exported_for_print_tells_no_resolution(tmp_path: Path, picture: NDArray[np.uint8], name: str) -> None:
    Image.fromarray(picture).save(tmp_path / name, dpi=(300, 300))
    facts = await facts_of(tmp_path / name)
    assert (None, None) == (facts.mpp_x, facts.mpp_y)


async def test_levels_are_the_tiled_images_of_the_same_proportions(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", [picture, picture[:500], picture[::4, ::4]])
    assert [1.0, 4.0] == [level.downsample for level in (await facts_of(path)).levels]


async def test_resolution_in_a_unit_that_tiff_does_not_know_counts_as_none(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    """2,000 px per millimetre, which by the inch would be 12.7 µm."""
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", resolution=(2000, 2000), resolutionunit="MILLIMETER")
    assert (await facts_of(path)).mpp_x is None


async def test_a_slide_none_of_whose_tiles_were_written_is_not_taken_for_a_blank_one(tmp_path: Path) -> None:
    tags = level_tags(1000, 700, number=0, tile=256, compression=7, photometric=2)
    path = write_tiff(tmp_path / "slide.tif", [(tags, [b""] * 12)], big=False)
    with pytest.raises(InvalidSlide, match="has none of its tiles: its writer did not finish"):
        await facts_of(path)


@pytest.mark.parametrize("other", ["mask", "macro", "16 bits"])
async def test_what_lies_beside_a_slide_in_its_proportions_is_no_level(tmp_path: Path, picture: NDArray[np.uint8], other: str) -> None:
    half = picture[::2, ::2]
    pixels, photometric, kind = {
        "mask": (half[..., 0], "minisblack", 0),
        "macro": (255 - half, "rgb", 9),
        "16 bits": (half.astype(np.uint16) * 257, "rgb", 0),
    }[other]
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as tiff:
        for each, colours, subfile in ((picture, "rgb", 0), (pixels, photometric, kind), (picture[::4, ::4], "rgb", 1)):
            tiff.write(each, tile=(256, 256), photometric=colours, compression="zlib", subfiletype=subfile, metadata=None)
    assert [1.0, 4.0] == [level.downsample for level in (await facts_of(path)).levels]


async def test_of_a_slide_after_other_images_no_reader_takes_another(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    """The slide is packed in a way that OpenSlide alone reads, and OpenSlide reads the first image."""
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture[:100, :150], photometric="rgb", rowsperstrip=16)
        planes = np.ascontiguousarray(np.moveaxis(picture, -1, 0))
        tiff.write(planes, tile=(256, 256), photometric="rgb", planarconfig="separate", compression="zlib", predictor=True)
    with pytest.raises(InvalidSlide, match="its slide comes after other images, of which other readers take the first"):
        await facts_of(path)


async def test_a_label_before_a_slide_without_tiles_is_not_taken_for_it(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    label, before, after = picture[:100, :150], tmp_path / "before.tif", tmp_path / "after.tif"
    for path, images in ((before, (label, picture)), (after, (picture, label))):
        with tifffile.TiffWriter(path) as tiff:
            for each in images:
                tiff.write(each, photometric="rgb", rowsperstrip=16)
    with pytest.raises(InvalidSlide, match="begins with an image of 150 × 100 px, and has one of 1000 × 700 px after it"):
        await facts_of(before)
    np.testing.assert_array_equal(picture, await whole(after))


@pytest.mark.parametrize(("pages", "levels"), [((2, 3, 2), 3), ((2, 9, 3), 2)], ids=["pages", "macro"])
async def test_levels_that_are_told_to_be_pages_are_levels(
    tmp_path: Path, picture: NDArray[np.uint8], pages: tuple[int, int, int], levels: int
) -> None:
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as tiff:
        for step, kind in zip((1, 2, 4), pages, strict=True):
            tiff.write(picture[::step, ::step], tile=(256, 256), photometric="rgb", subfiletype=kind, metadata=None)
    assert levels == len((await facts_of(path)).levels)


async def test_tiled_overviews_of_a_slide_without_tiles_are_not_taken_for_it(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    """As GDAL adds them, in tiles whatever the slide is stored in."""
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture, photometric="rgb", rowsperstrip=16, metadata=None)
        for step in (2, 4):
            tiff.write(picture[::step, ::step], tile=(128, 128), photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(picture, await whole(path))


@pytest.mark.parametrize("compression", [None, 34892, 50002, 65000])
async def test_of_an_image_without_tiles_what_comes_after_it_changes_nothing(
    tmp_path: Path, picture: NDArray[np.uint8], compression: int | None
) -> None:
    """Not a way to store it that Pillow does not know, nor its colour profile."""
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture, photometric="rgb", rowsperstrip=16, metadata=None)
        tiff.write(picture[:40, :60], photometric="rgb", rowsperstrip=16, metadata=None, iccprofile=bytes(200))
    if compression:
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tiff.pages[1].tags["Compression"].overwrite(compression, dtype="H")
    np.testing.assert_array_equal(picture, await whole(path))
    assert b"" == (await facts_of(path)).icc_profile


async def test_of_an_ome_slide_in_strips_after_its_label_no_reader_takes_the_label(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for each in (picture[:100, :150], picture):
            tiff.write(each, photometric="rgb", rowsperstrip=16)
    with pytest.raises(InvalidSlide, match="its slide comes after other images, of which other readers take the first"):
        await facts_of(path)


async def test_a_slide_in_one_tile_is_told_how_to_be_exported(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, np.full((8300, 8300), 240, np.uint8), tile=(8304, 8304), compression="zlib", metadata=None)
    with pytest.raises(InvalidSlide, match=r"or stored as one tile.* export it with tiles of 256 × 256"):
        await facts_of(path)


async def test_a_few_damaged_tiles_are_white_and_listed(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = write_svs(tmp_path / "slide.svs", picture, tile=64, spoil=(3, 20))
    async with open_at(path) as reader:
        regions = Regions(reader, cache_bytes=1 << 24, most_unreadable=0.1)
        pixels = await regions.read(0, 0, 0, WIDTH, HEIGHT)
    assert {(0, 3, 0), (0, 20 % 16, 20 // 16)} == regions.unreadable
    assert 255 == pixels[:64, 3 * 64 : 4 * 64].min()


async def test_many_damaged_tiles_fail_the_slide(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = write_svs(tmp_path / "slide.svs", picture, tile=64, spoil=range(0, 100, 4))
    with pytest.raises(InvalidSlide, match="damaged: 25 of the 176 stored tiles"):
        await read(path, 0, 0, WIDTH, HEIGHT)


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.999])
async def test_a_truncated_slide_is_told_to_be_truncated(tmp_path: Path, picture: NDArray[np.uint8], kept: float) -> None:
    path = write_svs(tmp_path / "slide.svs", picture)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(InvalidSlide, match="truncated"):
        await facts_of(path)


@pytest.mark.parametrize(
    "header", [b"II*\x00" + bytes(4), b"MM\x00*" + bytes(4), b"II+\x00\x08\x00" + bytes(10)], ids=["little", "big", "bigtiff"]
)
@pytest.mark.parametrize("following", [0, 100_000], ids=["alone", "before tiles"])
async def test_a_slide_whose_writer_is_not_done_is_told_so_and_ends_no_process(tmp_path: Path, header: bytes, following: int) -> None:
    path = tmp_path / "slide.svs"
    path.write_bytes(header + b"\x99" * following)
    with pytest.raises(InvalidSlide, match="tells of no image: its writer did not finish, or has not yet"):
        await facts_of(path)


async def test_a_slide_that_tells_of_fewer_tiles_than_it_has_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, np.zeros((512, 512, 3), np.uint8), photometric="rgb", tile=(256, 256))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages.first.tags["TileWidth"].overwrite(128)
    with pytest.raises(InvalidSlide, match="damaged: it consists of 8 tiles by its size, and tells where 4 of them lie"):
        await facts_of(path)


async def test_a_tiff_that_leaves_out_optional_tags_is_not_told_to_be_truncated(tmp_path: Path) -> None:
    path = tmp_path / "page.tif"
    Image.new("1", (64, 48)).save(path)
    facts = await facts_of(path)
    assert ("image", (64, 48), None) == (facts.reader, (facts.levels[0].width, facts.levels[0].height), facts.mpp_x)


@pytest.mark.parametrize("bigtiff", [False, True])
async def test_tags_that_are_missing_or_odd_leave_no_backtrace_among_the_logs(
    tmp_path: Path, picture: NDArray[np.uint8], bigtiff: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", bigtiff=bigtiff)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        entries = [tag.offset for tag in tiff.pages[0].tags]
    told = []
    for entry in entries:
        # As an unknown tag, as text that does not end, of an unknown type, and without a value.
        for place, value in ((entry, 60_000), (entry + 2, 2), (entry + 2, 99), (entry + 4, 0)):
            odd = bytearray(content)
            odd[place : place + 2] = value.to_bytes(2, "little")
            path.write_bytes(odd)
            with contextlib.suppress(InvalidSlide):
                told.append((await facts_of(path)).reader)
    assert {"tiff"} < set(told)
    assert "" == capfd.readouterr().err


@pytest.mark.parametrize("bigtiff", [False, True])
async def test_a_tag_that_claims_more_than_the_file_has_does_not_take_the_memory(
    tmp_path: Path, picture: NDArray[np.uint8], bigtiff: bool
) -> None:
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", bigtiff=bigtiff)
    with tifffile.TiffFile(path) as tiff:
        entry = tiff.pages[0].tags["BitsPerSample"].offset
    odd = bytearray(path.read_bytes())
    odd[entry + 4 : entry + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(odd)
    with pytest.raises(InvalidSlide, match="points past its end: it is truncated or damaged"):
        await facts_of(path)


async def test_a_description_that_takes_long_to_search_is_refused_before_it_is_read(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    told = "Aperio Image Library v11\r\n|MPP = 0.5"
    whole = write_jpeg_tiff(tmp_path / "long.svs", [picture], description=told + "|x = 1" * 2_000_000)
    assert 0.5 == (await facts_of(whole)).mpp_x
    path = write_jpeg_tiff(tmp_path / "endless.svs", [picture], description=told + "|x = 1" * 3_000_000)
    with pytest.raises(InvalidSlide, match="more than 16,777,216 bytes of texts and profiles in one directory"):
        await facts_of(path)


async def test_directories_that_share_a_long_text_are_refused_before_it_is_held_for_each(
    tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    path = write_jpeg_tiff(tmp_path / "many.tif", [picture], description="x" * 8_000_000)
    content = bytearray(path.read_bytes())
    (begin,) = struct.unpack_from("<I", content, 4)
    end = begin + 2 + 12 * struct.unpack_from("<H", content, begin)[0]
    directory, link = content[begin:end], end
    for _ in range(40):
        struct.pack_into("<I", content, link, len(content))
        content += directory + bytes(4)
        link = len(content) - 4
    path.write_bytes(content)
    assert path.stat().st_size < 9_000_000
    with pytest.raises(InvalidSlide, match="more than 268,435,456 bytes in its directories"):
        await facts_of(path)


async def test_what_a_description_tells_of_images_is_not_looked_for_on_the_event_loop(
    tmp_path: Path, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, images_of = set[int](), ome.images_of

    def looked_for(description: str, name: str) -> list[ome.OmeImage]:
        threads.add(threading.get_ident())
        return images_of(description, name)

    monkeypatch.setattr(ome, "images_of", looked_for)
    await facts_of(write_jpeg_tiff(tmp_path / "slide.ome.tif", [picture], description="<OME></OME>"))
    assert threads
    assert threading.get_ident() not in threads


async def test_a_tile_that_lies_past_any_file_is_told_to_be_damaged(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", [picture], bigtiff=True, resolution=(20000, 20000))
    with tifffile.TiffFile(path) as tiff:
        places = tiff.pages[0].tags["TileOffsets"].valueoffset
    content = bytearray(path.read_bytes())
    content[places : places + 8] = (2**64 - 100).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(InvalidSlide, match="a tile that lies far past its end"):
        await facts_of(path)


@pytest.mark.parametrize(("page", "tag", "told"), [(0, "ImageLength", "it has 1000 × 0 px; it is damaged"), (1, "ImageWidth", "")])
async def test_an_image_without_pixels_is_told_to_be_damaged_and_is_no_level(
    tmp_path: Path, picture: NDArray[np.uint8], page: int, tag: str, told: str
) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", [picture, np.ascontiguousarray(picture[::2, ::2])], resolution=(20000, 20000))
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[page].tags[tag].valueoffset
    content = bytearray(path.read_bytes())
    content[place : place + 4] = bytes(4)
    path.write_bytes(content)
    if told:
        with pytest.raises(InvalidSlide, match=told):
            await facts_of(path)
    else:
        assert len((await facts_of(path)).levels) == 1


async def test_directories_in_a_circle_are_told_to_be_damaged(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = write_svs(tmp_path / "slide.svs", picture)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        first, page = tiff.pages[0].offset, tiff.pages[0]
        link = first + 2 + 12 * len(page.tags)
    content[link : link + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InvalidSlide, match="directories form a circle"):
        await asyncio.wait_for(facts_of(path), 60)


async def test_of_a_tag_that_is_there_twice_the_first_counts(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", [picture], resolution=(20000, 20000))
    once = await whole(path)
    with tifffile.TiffFile(path) as tiff:
        entry = tiff.pages[0].tags["YCbCrSubSampling"].offset
    content = bytearray(path.read_bytes())
    # A second compression: none.
    content[entry : entry + 2] = (259).to_bytes(2, "little")
    path.write_bytes(content)
    assert np.array_equal(once, await whole(path))


async def test_a_text_file_named_svs_is_told_to_be_no_slide(tmp_path: Path) -> None:
    path = tmp_path / "notes.svs"
    path.write_text("These are notes, not a slide.\n" * 20)
    with pytest.raises(InvalidSlide, match=r"notes.svs is no slide: it begins with b'These ar', and TIFF"):
        await facts_of(path)


async def test_an_empty_file_is_told_to_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.svs"
    path.touch()
    with pytest.raises(InvalidSlide, match=r"is empty \(0 bytes\)"):
        await facts_of(path)


async def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        await facts_of(tmp_path / "none.svs")


async def test_a_path_outside_of_the_roots_is_denied(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = write_svs(tmp_path / "slide.svs", picture)
    with pytest.raises(AccessDenied, match="not under an allowed root"):
        async with open_at(path, root=tmp_path / "slides"):
            pass


@pytest.mark.parametrize("write", [write_jpeg_tiff, write_lzw_tiff], ids=["jpeg", "lzw"])
async def test_a_mount_that_hangs_holds_up_no_other_slide(
    tmp_path: Path, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, write: Callable[..., Path]
) -> None:
    """Reads of it wait for good: as many as two calls for each core."""
    pixels = [picture] if write is write_jpeg_tiff else picture
    hung, sound = write(tmp_path / "hung.tif", pixels), write(tmp_path / "sound.tif", pixels)
    begun, goes_on = threading.Semaphore(0), threading.Event()

    def read_slowly(path: Path, *given: Any, **options: Any) -> Any:
        if path.name == hung.name:
            begun.release()
            goes_on.wait(120)
        return read_scattered(path, *given, **options)

    async with open_at(hung) as reader, open_at(sound) as other:
        monkeypatch.setattr("inference_server.storage.stored.read_scattered", read_slowly)
        waiting = [asyncio.create_task(reader.read_tiles(0, [(0, 0)])) for _ in range(2 * usable_cores() + 4)]
        try:
            for _ in range(max(usable_cores(), 2)):
                assert await asyncio.to_thread(begun.acquire, timeout=60)
            (tile,) = await asyncio.wait_for(other.read_tiles(0, [(0, 0)]), 60)
            assert tile is not None
        finally:
            goes_on.set()
        np.testing.assert_array_equal(tile, (await asyncio.gather(*waiting))[-1][0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
async def test_an_image_is_read_as_it_is_stored_whatever_its_orientation(
    tmp_path: Path, picture: NDArray[np.uint8], kind: str, orientation: int
) -> None:
    """As tiled TIFF and OpenSlide have it: places on it are those of the stored pixels."""
    path, exif = tmp_path / f"photo.{kind.lower()}", Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(picture)
    image.save(path, kind, exif=exif, dpi=(25400, 50800), **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    facts = await facts_of(path)
    assert (WIDTH, HEIGHT, 1.0, 0.5) == (facts.levels[0].width, facts.levels[0].height, facts.mpp_x, facts.mpp_y)
    np.testing.assert_allclose(picture.astype(int), (await read(path, 0, 0, WIDTH, HEIGHT)).astype(int), atol=0 if kind == "TIFF" else 12)


async def test_a_huge_image_without_tiles_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    with pytest.raises(InvalidSlide, match=r"without tiles.*at most 100,000,000 px.*Convert it to a tiled pyramid"):
        await facts_of(write_huge_striped_tiff(tmp_path / "huge.tif"))


async def test_sixteen_bit_pixels_are_refused_with_what_was_expected(tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.zeros((512, 512, 3), np.uint16), tile=(256, 256), photometric="rgb")
    with pytest.raises(InvalidSlide, match=r"16, 16, 16.*expected 8-bit"):
        await facts_of(path)


async def test_tiles_as_large_as_a_slide_are_refused(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = write_svs(tmp_path / "slide.svs", picture)
    with pytest.raises(InvalidSlide, match="stored in tiles of 240 × 240 px; at most 10,000"):
        async with open_at(path, limits=SlideLimits(most_tile_pixels=10_000)):
            pass


async def test_a_region_that_would_not_fit_into_memory_is_refused(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = write_jpeg_tiff(tmp_path / "slide.tif", [picture])
    with pytest.raises(InvalidSlide, match="would be read at once"):
        await read(path, 0, 0, 20_000, 20_000)
