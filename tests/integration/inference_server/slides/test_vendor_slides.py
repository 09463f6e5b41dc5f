"""Vendors' slides, which OpenSlide reads: their odd levels, what they lack, and whole analyses of them from an object store."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import grpc.aio
import numpy as np
import openslide
import pytest
import tifffile
from lamina.v1 import slides_pb2, slides_pb2_grpc
from numpy.typing import NDArray
from PIL import Image

from inference_server.errors import InvalidInput, InvalidSlide
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import SlideLimits
from tests.support.inference_server.running_application import running_application
from tests.support.slides.hamamatsu import write_ndpi, write_vms
from tests.support.slides.mirax import write_mrxs
from tests.support.slides.opened_slides import open_at
from tests.support.slides.painted import paint, scattered
from tests.support.slides.range_server import range_server
from tests.support.slides.vendor_tiffs import Box, write_bif, write_philips, write_scn

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT = 2048, 1024
# What was scanned, and where nuclei lie in it.
SCANNED: Box = (512, 256, 1920, 896)
INNER = tuple(edge + inset for edge, inset in zip(SCANNED, (40, 40, -40, -40), strict=True))
NUCLEI = scattered(300, within=INNER, apart=25)


@pytest.fixture(scope="module")
def picture() -> Pixels:
    return paint(WIDTH, HEIGHT, tissue=INNER, nuclei=NUCLEI, noise=2)


async def whole_level(path: Path, level: int) -> Pixels:
    async with open_at(path) as reader:
        stored = reader.facts.levels[level]
        return await Regions(reader, cache_bytes=1 << 25, most_unreadable=0.0).read(level, 0, 0, stored.width, stored.height)


def peers_level(path: Path, level: int) -> Pixels:
    with openslide.OpenSlide(path) as slide:
        region = slide.read_region((0, 0), level, slide.level_dimensions[level])
    return np.asarray(Image.alpha_composite(Image.new("RGBA", region.size, (255, 255, 255, 255)), region).convert("RGB"))


@pytest.mark.parametrize(("width", "height"), [(1700, 790), (1875, 1006)])
async def test_blocks_of_a_level_that_is_no_whole_part_of_the_first_meet_without_a_seam(
    tmp_path: Path, picture: Pixels, width: int, height: int
) -> None:
    path = write_scn(tmp_path / "slide.scn", picture[:height, :width], [(128, 64, 1329, height)], levels=2)
    assert not openslide.OpenSlide(path).level_downsamples[1].is_integer()
    np.testing.assert_array_equal(peers_level(path, 1), await whole_level(path, 1))


@pytest.mark.parametrize(("width", "said"), [(1 << 28, "tells of tiles with more than"), (1 << 18, "stored in tiles of 262144 × 128 px")])
@pytest.mark.parametrize("level", [0, 2])
async def test_tiles_for_which_there_is_no_memory_are_refused_before_openslide_asks_for_it(
    tmp_path: Path, picture: Pixels, width: int, said: str, level: int
) -> None:
    """It ends the process where it gets none: of a file whose header is damaged, all slides and documents of the server with it."""
    path = write_philips(tmp_path / "slide.tiff", picture)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[level].tags["TileWidth"].overwrite(width, dtype="I")
    with pytest.raises(InvalidSlide, match=said):
        await whole_level(path, 0)


@pytest.mark.parametrize(("most", "is_read"), [(256 * 176, True), (256 * 176 - 1, False)])
async def test_a_level_that_is_one_picture_may_be_as_large_as_any_that_is_decoded_whole(
    tmp_path: Path, picture: Pixels, most: int, is_read: bool
) -> None:
    """Hamamatsu's small levels may have no markers, and have tens of millions of pixels where the slide is large."""
    slide = np.ascontiguousarray(picture[:704, :1024])
    path = write_ndpi(tmp_path / "slide.ndpi", [slide, np.ascontiguousarray(slide[::4, ::4])])
    storage = Storage(read_roots=(str(tmp_path),), write_roots=())
    limits = SlideLimits(most_tile_pixels=10_000, most_image_pixels=most)
    with contextlib.nullcontext() if is_read else pytest.raises(InvalidSlide, match="stored in tiles of 256 × 176 px"):
        async with open_slide(storage, str(path), limits, Staging(storage, most_bytes=1 << 30)) as reader:
            assert "openslide" == reader.facts.reader


async def test_small_levels_keep_the_factor_that_the_file_tells(tmp_path: Path, picture: Pixels) -> None:
    # 15 px fit 1,000 px by 64, and by 67 too.
    path = write_philips(tmp_path / "slide.tiff", np.ascontiguousarray(picture[:700, :1000]), levels=7)
    async with open_at(path) as reader:
        assert [(2.0**number, 2.0**number) for number in range(7)] == [
            (level.downsample_x, level.downsample_y) for level in reader.facts.levels
        ]


async def test_an_ndpi_beyond_four_gibibytes_is_read_as_a_near_one(tmp_path: Path, picture: Pixels) -> None:
    levels = [picture, np.ascontiguousarray(picture[::4, ::4])]
    near, far = (write_ndpi(tmp_path / f"{start}.ndpi", levels, start=start) for start in (0, 5 << 30))
    with far.open("r+b") as file:
        # Where a TIFF would look for the first directory lies something else: one tag, of more values than the file has bytes.
        place = int.from_bytes(file.read(12)[4:], "little")
        assert place > 5 << 30
        file.seek(place & 0xFFFFFFFF)
        file.write(struct.pack("<HHHII", 1, 256, 5, 0xFFFFFFFF, 0))
    for level in (0, 1, 2):
        np.testing.assert_array_equal(await whole_level(near, level), await whole_level(far, level))


def mrxs(folder: Path, pixels: Pixels) -> Path:
    return write_mrxs(folder / "slide.mrxs", pixels, levels=2)


def vms(folder: Path, pixels: Pixels) -> Path:
    return write_vms(folder / "slide.vms", pixels, interval=16)


@pytest.mark.parametrize(
    ("write", "lost", "told"),
    [
        (mrxs, "slide", r"slide.mrxs lacks its folder of data, slide/ beside it"),
        (mrxs, "slide/Slidedat.ini", r"slide.mrxs lacks slide/Slidedat.ini, which belongs to it \(1 of its files"),
        (mrxs, "slide/Index.dat", r"slide.mrxs lacks slide/Index.dat, which belongs to it"),
        (mrxs, "slide/Data0001.dat", r"slide.mrxs lacks slide/Data0001.dat, which belongs to it"),
        (vms, "slide_1.jpg", r"slide.vms lacks slide_1.jpg, which belongs to it"),
        (vms, "slide_map.jpg", r"slide.vms lacks slide_map.jpg, which belongs to it"),
        (vms, "slide_macro.jpg", r"slide.vms lacks slide_macro.jpg, which belongs to it"),
    ],
)
@pytest.mark.parametrize("place", ["disk", "s3"])
async def test_a_slide_that_lacks_one_of_its_files_names_it(
    tmp_path: Path,
    picture: Pixels,
    write: Callable[[Path, Pixels], Path],
    lost: str,
    told: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bucket").mkdir()
    path = write(tmp_path / "bucket", picture[:352, :512])
    gone = path.parent / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with range_server(tmp_path) as server:
        for name, value in server.s3_environment.items():
            monkeypatch.setenv(name, value)
        root = "s3://bucket" if place == "s3" else str(path.parent)
        storage = Storage(read_roots=(root,), write_roots=(), allow_http=True)
        staging = Staging(storage, most_bytes=1 << 30, folder=tmp_path / "staging")
        with pytest.raises(InvalidSlide, match=told):
            await open_slide(storage, f"{root}/{path.name}", SlideLimits(), staging).__aenter__()


async def test_a_slide_in_an_archive_is_told_to_be_unpacked(tmp_path: Path, picture: Pixels) -> None:
    slide = mrxs(tmp_path, picture)
    with zipfile.ZipFile(tmp_path / "slide.zip", "w") as archive:
        for each in (slide, *slide.with_suffix("").iterdir()):
            archive.write(each, each.relative_to(tmp_path))
    with pytest.raises(InvalidSlide, match=r"slide.zip is a ZIP archive.* Unpack it, and name .* of MRXS the .mrxs beside its folder"):
        async with open_at(tmp_path / "slide.zip"):
            pass


async def test_the_small_picture_in_a_vsi_is_not_taken_for_the_slide(tmp_path: Path, picture: Pixels) -> None:
    tifffile.imwrite(tmp_path / "slide.vsi", picture, photometric="rgb")
    with pytest.raises(InvalidSlide, match=r"slide.vsi is an Olympus VSI, whose pixels lie in .ets files"):
        async with open_at(tmp_path / "slide.vsi"):
            pass


async def test_a_folder_is_told_which_of_its_files_to_name(tmp_path: Path) -> None:
    storage = Storage(read_roots=("s3://slides/",), write_roots=())
    with pytest.raises(InvalidInput, match=r"names a folder. Name one file of the slide: of DICOM any of its series"):
        async with open_slide(storage, "s3://slides/series/", SlideLimits(), Staging(storage, most_bytes=1, folder=tmp_path)):
            pass


async def test_a_mirax_slide_is_not_taken_for_the_picture_that_names_it(tmp_path: Path, picture: Pixels) -> None:
    path = mrxs(tmp_path, picture[:352, :512])
    renamed = path.rename(path.with_suffix(".MRXS"))
    with pytest.raises(InvalidSlide, match=r"slide.MRXS is not taken for a MIRAX slide, whose name ends in \.mrxs"):
        await whole_level(renamed, 0)


@pytest.mark.parametrize("kind", ["ndpi", "scn", "philips", "bif"])
async def test_a_slide_without_an_ending_to_its_name_is_known_by_what_it_holds(
    tmp_path: Path, picture: Pixels, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bucket").mkdir()
    path = WRITERS[kind](tmp_path / "bucket" / "slide", picture)
    with range_server(tmp_path) as server:
        for name, value in server.s3_environment.items():
            monkeypatch.setenv(name, value)
        storage = Storage(read_roots=("s3://bucket",), write_roots=(), allow_http=True)
        staging = Staging(storage, most_bytes=1 << 30, folder=tmp_path / "staging")
        async with open_slide(storage, "s3://bucket/slide", SlideLimits(), staging) as reader:
            assert openslide.OpenSlide.detect_format(path) == reader.facts.vendor
            assert (0.5, 0.5) == (reader.facts.mpp_x, reader.facts.mpp_y)


def philips(path: Path, pixels: Pixels) -> Path:
    left, top, right, bottom = (edge // 128 for edge in SCANNED)
    places = {(column, row) for column in range(WIDTH // 128) for row in range(HEIGHT // 128)}
    return write_philips(path, pixels, unscanned=places - {(x, y) for x in range(left, right) for y in range(top, bottom)})


WRITERS: dict[str, Callable[[Path, Pixels], Path]] = {
    "ndpi": lambda path, pixels: write_ndpi(path, [pixels, np.ascontiguousarray(pixels[::4, ::4])]),
    "scn": lambda path, pixels: write_scn(path, pixels, [(512, 256, 1216, 896), (1216, 256, 1920, 896)]),
    "philips": philips,
    "mrxs": lambda path, pixels: write_mrxs(path, pixels, images=8, levels=3, first=2),
    "bif": lambda path, pixels: write_bif(path, pixels, [(0, 0, 16, 8)]),
}
BOUNDS = {"scn": (512, 256), "mrxs": (512, 256)}


@pytest.mark.parametrize("kind", WRITERS)
async def test_a_vendors_slide_is_analysed_whole_from_an_object_store(
    kind: str, tmp_path: Path, models: Path, picture: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bucket").mkdir()
    WRITERS[kind](tmp_path / "bucket" / f"slide.{kind}", picture)
    with range_server(tmp_path) as server:
        for name, value in server.s3_environment.items():
            monkeypatch.setenv(name, value)
        roots = {"read_roots": "s3://bucket", "write_roots": str(tmp_path / "out"), "allow_http": True}
        async with (
            running_application(models, tmp_path, staging=tmp_path / "staging", **roots) as application,
            grpc.aio.insecure_channel(application.grpc.address) as channel,
        ):
            stub = slides_pb2_grpc.SlideServiceStub(channel)
            request = slides_pb2.AnalyzeSlideRequest(slide_uri=f"s3://bucket/slide.{kind}", output_uri=str(tmp_path / "out"))
            result = [event async for event in stub.AnalyzeSlide(request)][-1].result
    report = json.loads(result.report_json)
    assert ("openslide", 0, 0.5) == (report["slide"]["reader"], result.tiles_skipped, report["slide"]["mpp_x"])
    features = json.loads(gzip.decompress((tmp_path / "out" / "detections.geojson.gz").read_bytes()))["features"]
    found = np.array([feature["geometry"]["coordinates"] for feature in features]) + BOUNDS.get(kind, (0, 0))
    apart = np.hypot(*(found[:, None] - np.array(NUCLEI)[None]).transpose(2, 0, 1))
    # Within 4 µm.
    assert (apart.min(axis=0) < 8).mean() > 0.97
    assert (apart.min(axis=1) < 8).mean() > 0.97
