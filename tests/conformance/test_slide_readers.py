"""What every reader of slides keeps to, on each kind of file, from disk and from an object store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pyvips import Image as VipsImage

from inference_server.errors import InvalidInput, InvalidSlide, Unavailable
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.readers.colour import with_managed_colours
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.port import SlideReader
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import SlideLimits
from tests.support.slides.colour_profiles import linear_profile
from tests.support.slides.dicom import write_dicom
from tests.support.slides.hamamatsu import write_ndpi, write_vms
from tests.support.slides.mirax import write_mrxs
from tests.support.slides.painted import paint, scattered, write_jpeg2000_svs, write_jpeg_tiff, write_lzw_tiff, write_svs
from tests.support.slides.range_server import RangeServer, range_server
from tests.support.slides.vendor_tiffs import write_argos, write_bif, write_philips, write_scn, write_trestle
from tests.support.slides.vips import save_pyramid

Pixels = NDArray[np.uint8]
WIDTH, HEIGHT = 1000, 700
REGIONS = 200
BUCKET = "slides"


def picture(width: int, height: int) -> Pixels:
    tissue = (100, 80, 900, 650)
    return paint(width, height, tissue=tissue, nuclei=scattered(200, within=tissue, apart=14), noise=6)


PICTURE = picture(WIDTH, HEIGHT)
HALF = np.ascontiguousarray(PICTURE[::2, ::2])
# Of whole blocks of JPEG, intervals and tiles, as scanners make them.
EVEN = picture(1024, 704)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of file."""

    # Writes a slide of `PICTURE` or `EVEN` into a folder.
    write: Callable[[Path], Path]
    reader: str
    # As OpenSlide names it; empty where it is one of those that are read in place, or that it does not read.
    vendor: str = ""
    size: tuple[int, int] = (WIDTH, HEIGHT)
    levels: int = 1
    # Micrometres per pixel that the file tells.
    mpp: float | None = 0.5
    # Where what was scanned begins.
    bounds: tuple[int, int] = (0, 0)
    # Pictures beside the slide's own.
    others: tuple[str, ...] = ()
    # Whether it consists of several files.
    several: bool = False
    # Whether OpenSlide reads it too; else it holds `PICTURE` without loss.
    peer: bool = True
    # Writes it with an ICC profile.
    with_profile: Callable[[Path, bytes], Path] | None = None


def ome(folder: Path, *, bigtiff: bool = True, levels: int = 2) -> Path:
    """As bioformats and QuPath write pyramids: smaller levels lie in directories below the first."""
    path = folder / "slide.ome.tif"
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tiff:
        tiff.write(PICTURE, subifds=levels - 1, metadata=metadata, **options)
        for level in range(1, levels):
            tiff.write(np.ascontiguousarray(PICTURE[:: 2**level, :: 2**level]), subfiletype=1, **options)
    return path


def tiled(folder: Path, **options: object) -> Path:
    path = folder / "slide.tif"
    tifffile.imwrite(path, PICTURE, tile=(256, 256), photometric="rgb", resolution=(20000, 20000), resolutionunit="CENTIMETER", **options)
    return path


def vips(folder: Path, **options: int) -> Path:
    """As libvips, and with it much that is not a scanner, writes what calls itself Aperio's."""
    description = f"Aperio Image Library v11\r\n{WIDTH}x{HEIGHT} (256x256) JPEG|AppMag = 20|MPP = 0.5"
    return save_pyramid(folder / "slide.svs", VipsImage.new_from_array(PICTURE, interpretation="srgb"), description=description, **options)


def turned_round(folder: Path) -> Path:
    """A label and the smaller level come first, as some programs that convert slides write them."""
    path = folder / "slide.tif"
    with tifffile.TiffWriter(path) as tiff:
        for pixels in (PICTURE[:150, :220], HALF, PICTURE):
            resolution = (10000, 10000) if pixels is HALF else (20000, 20000)
            tiff.write(pixels, tile=(256, 256), photometric="rgb", compression="zlib", resolution=resolution, resolutionunit="CENTIMETER")
    return path


def png(folder: Path, profile: bytes = b"") -> Path:
    Image.fromarray(PICTURE).save(folder / "slide.png", icc_profile=profile, compress_level=1)
    return folder / "slide.png"


def strided(step: int) -> Pixels:
    return np.ascontiguousarray(EVEN[::step, ::step])


def vendors(vendor: str, write: Callable[[Path], Path], **told: Any) -> Kind:
    """A kind that OpenSlide reads from disk."""
    others = ("label", "macro") if vendor == "mirax" else ()
    return Kind(**{"write": write, "reader": "openslide", "vendor": vendor, "size": (1024, 704), "others": others, **told})


KINDS = {
    "svs_rgb": Kind(
        write=lambda folder: write_svs(folder / "slide.svs", PICTURE),
        with_profile=lambda folder, profile: write_svs(folder / "slide.svs", PICTURE, profile=profile),
        reader="tiff",
    ),
    "svs_jpeg2000_rgb": Kind(
        write=lambda folder: write_jpeg2000_svs(folder / "slide.svs", [PICTURE, HALF], compression=33005), reader="tiff", levels=2
    ),
    "svs_jpeg2000_ycbcr": Kind(write=lambda folder: write_jpeg2000_svs(folder / "slide.svs", [PICTURE], compression=33003), reader="tiff"),
    "pyramid_ycbcr": Kind(
        write=lambda folder: write_jpeg_tiff(folder / "slide.tif", [PICTURE, HALF], resolution=(20000, 20000)), reader="tiff", levels=2
    ),
    "bigtiff_jpeg": Kind(
        write=lambda folder: write_jpeg_tiff(folder / "slide.tif", [PICTURE, HALF], resolution=(20000, 20000), bigtiff=True),
        reader="tiff",
        levels=2,
    ),
    "vips_rgb": Kind(write=lambda folder: vips(folder, rgb_components=True), reader="tiff", levels=3),
    "vips_ycbcr": Kind(write=vips, reader="tiff", levels=3),
    "vips_bigtiff": Kind(write=lambda folder: vips(folder, rgb_components=True, bigtiff=True), reader="tiff", levels=3),
    "ome_pyramid": Kind(write=ome, reader="tiff", levels=2),
    # Its tag of the directories below has the type IFD instead of IFD8, and its values lie apart from it.
    "ome_classic_pyramid": Kind(write=lambda folder: ome(folder, bigtiff=False, levels=4), reader="tiff", levels=4),
    "deflate": Kind(write=lambda folder: tiled(folder, compression="zlib", predictor=True), reader="tiff"),
    # OpenSlide takes the label for the slide.
    "label_first": Kind(write=turned_round, reader="tiff", levels=2, peer=False),
    "uncompressed": Kind(write=tiled, reader="tiff"),
    "lzw": Kind(write=lambda folder: write_lzw_tiff(folder / "slide.tif", PICTURE), reader="tiff", mpp=None),
    "dicom": Kind(
        write=lambda folder: write_dicom(folder / "series", [PICTURE, HALF]),
        with_profile=lambda folder, profile: write_dicom(folder / "series", [PICTURE, HALF], profile=profile),
        reader="openslide",
        vendor="dicom",
        levels=2,
        several=True,
    ),
    "mrxs": vendors("mirax", lambda folder: write_mrxs(folder / "slide.mrxs", EVEN, levels=3), levels=3, bounds=(256, 176), several=True),
    "mrxs_overlapping": vendors(
        "mirax",
        lambda folder: write_mrxs(folder / "slide.mrxs", EVEN, levels=3, overlap=8),
        levels=3,
        bounds=(254, 174),
        several=True,
    ),
    "ndpi": vendors(
        "hamamatsu", lambda folder: write_ndpi(folder / "slide.ndpi", [EVEN, strided(4), strided(16)]), levels=7, others=("macro",)
    ),
    "vms": vendors(
        "hamamatsu", lambda folder: write_vms(folder / "slide.vms", EVEN, interval=16), levels=7, others=("macro",), several=True
    ),
    "scn": vendors(
        "leica",
        lambda folder: write_scn(folder / "slide.scn", EVEN, [(96, 80, 480, 640), (512, 160, 992, 480)]),
        levels=3,
        bounds=(96, 80),
        others=("macro",),
    ),
    "philips": vendors(
        "philips",
        lambda folder: write_philips(folder / "slide.tiff", EVEN, unscanned=[(0, 0), (1, 0), (0, 1), (1, 1), (7, 5), (4, 2)]),
        levels=3,
        others=("label", "macro"),
    ),
    "bif": vendors(
        "ventana",
        lambda folder: write_bif(folder / "slide.bif", EVEN, [(0, 0, 4, 3), (4, 3, 8, 5)]),
        size=(996, 624),
        levels=2,
        others=("macro",),
        with_profile=lambda folder, profile: write_bif(folder / "slide.bif", EVEN, [(0, 0, 8, 5)], profile=profile),
    ),
    # On a level of half the size, tiles begin between pixels.
    "bif_oddly_overlapping": vendors(
        "ventana",
        lambda folder: write_bif(folder / "slide.bif", EVEN, [(0, 0, 4, 3), (4, 3, 8, 5)], overlap=3),
        size=(1003, 628),
        levels=2,
        others=("macro",),
    ),
    "trestle": vendors("trestle", lambda folder: write_trestle(folder / "slide.tif", EVEN), levels=2, others=("macro",)),
    "argos": vendors("argos", lambda folder: write_argos(folder / "slide.avs", [EVEN[::-1], EVEN, EVEN[::-1]]), levels=2),
    "png": Kind(write=png, with_profile=png, reader="image", mpp=None, peer=False),
}


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def path(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slide, where the object store has it too."""
    folder = tmp_path_factory.mktemp("store") / BUCKET
    folder.mkdir()
    return kind.write(folder)


@pytest.fixture(scope="module")
def store(path: Path) -> Iterator[RangeServer]:
    with range_server(next(parent for parent in path.parents if parent.name == BUCKET).parent) as server:
        yield server


@contextlib.asynccontextmanager
async def opened(uri: str, root: str, *, allow_http: bool = False) -> AsyncIterator[SlideReader]:
    storage = Storage(read_roots=(root,), write_roots=(), allow_http=allow_http)
    async with open_slide(storage, uri, SlideLimits(), Staging(storage, most_bytes=1 << 30)) as reader:
        yield reader


def on_disk(path: Path) -> contextlib.AbstractAsyncContextManager[SlideReader]:
    return opened(str(path), str(path.parent))


def regions_of(reader: SlideReader) -> Regions:
    return Regions(reader, cache_bytes=1 << 25, most_unreadable=0.1)


def random_regions(size: tuple[int, int], levels: int) -> Iterator[tuple[int, int, int]]:
    """Level and corner; some lie partly past an edge."""
    random = np.random.default_rng(0)
    for _ in range(REGIONS):
        level = int(random.integers(0, levels))
        yield level, int(random.integers(-60, size[0] >> level)), int(random.integers(-50, size[1] >> level))


def expected_region(peer: openslide.OpenSlide | None, level: int, x: int, y: int, width: int, height: int) -> Pixels:
    if peer is None:
        white = np.pad(PICTURE, ((100, 100), (100, 100), (0, 0)), constant_values=255)
        return white[y + 100 : y + 100 + height, x + 100 : x + 100 + width]
    region = peer.read_region((x << level, y << level), level, (width, height))
    white_ground = Image.new("RGBA", region.size, (255, 255, 255, 255))
    expected = np.array(Image.alpha_composite(white_ground, region).convert("RGB"))
    # Pictures that lie between pixels reach a part of one past the edge, where ours are white.
    level_width, level_height = peer.level_dimensions[level]
    expected[max(level_height - y, 0) :], expected[:, max(level_width - x, 0) :] = 255, 255
    return expected


async def test_regions_equal_openslides_pixel_by_pixel(kind: Kind, path: Path) -> None:
    peer = openslide.OpenSlide(path) if kind.peer else None
    # OpenSlide takes the first level only of a pyramid in OME's way.
    common = min(kind.levels, peer.level_count if peer else 1)
    async with on_disk(path) as reader:
        assert (kind.reader, kind.levels) == (reader.facts.reader, len(reader.facts.levels))
        regions = regions_of(reader)
        for level, x, y in random_regions(kind.size, common):
            np.testing.assert_array_equal(expected_region(peer, level, x, y, 90, 70), await regions.read(level, x, y, 90, 70))


async def test_what_lies_past_the_edge_is_white(path: Path) -> None:
    async with on_disk(path) as reader:
        for level, stored in enumerate(reader.facts.levels):
            regions = regions_of(reader)
            around = (await regions.read(level, -20, -10, stored.width + 50, stored.height + 40)).copy()
            np.testing.assert_array_equal(
                await regions.read(level, 0, 0, stored.width, stored.height), around[10 : 10 + stored.height, 20 : 20 + stored.width]
            )
            around[10 : 10 + stored.height, 20 : 20 + stored.width] = 255
            assert 255 == around.min()


async def test_size_and_resolution_are_the_files_own(kind: Kind, path: Path) -> None:
    async with on_disk(path) as reader:
        facts = reader.facts
    assert (*kind.size, *kind.bounds) == (facts.width, facts.height, facts.bounds_x, facts.bounds_y)
    assert [2.0**number for number in range(kind.levels)] == [level.downsample for level in facts.levels]
    assert (kind.mpp, kind.mpp) == (pytest.approx(facts.mpp_x), pytest.approx(facts.mpp_y))


async def test_levels_that_halve_are_told_as_such_down_to_a_few_pixels(tmp_path: Path) -> None:
    """Of 1,000 px are left 15, rounded down at each turn: nearer to a 67th than to a 64th."""
    async with on_disk(vips(tmp_path, tile=16)) as reader:
        assert [1, 2, 4, 8, 16, 32, 64] == [level.downsample for level in reader.facts.levels]


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.vendor])
async def test_openslide_itself_knows_the_vendors_format(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    path = kind.write(tmp_path)
    with openslide.OpenSlide(path) as peer:
        assert set(kind.others) == set(peer.associated_images)
    async with on_disk(path) as reader:
        assert kind.vendor == openslide.OpenSlide.detect_format(path) == reader.facts.vendor
        assert 20.0 == (reader.facts.objective_power or 20.0)


SPOILED = {
    "tiff": lambda folder: write_svs(folder / "slide.svs", np.tile(PICTURE, (2, 2, 1)), tile=256, spoil=(3 * 8 + 5,)),
    # Pictures as large as the reader's blocks, so that one of them is one tile.
    "openslide": lambda folder: write_mrxs(folder / "slide.mrxs", EIGHT, images=8, first=0, spoil=[(5, 3)]),
}
EIGHT = np.ascontiguousarray(np.tile(PICTURE[:512, :512], (8, 8, 1)))


@pytest.mark.parametrize("reader_name", SPOILED)
async def test_one_damaged_tile_is_told_alone_however_many_are_read_at_once(reader_name: str, tmp_path: Path) -> None:
    path = SPOILED[reader_name](tmp_path)
    async with on_disk(path) as reader:
        assert reader_name == reader.facts.reader
        level = reader.facts.levels[0]
        places = [(column, row) for row in range(level.rows) for column in range(level.columns)]
        # Each of the six meets the damaged tile among sound ones, at another time.
        turns = [places[start:] + places[:start] for start in range(0, len(places), -(-len(places) // 6))]
        found = await asyncio.gather(*(reader.read_tiles(0, turn) for turn in turns))
    assert 6 == len(found)
    for turn, tiles in zip(turns, found, strict=True):
        assert [(5, 3)] == [place for place, tile in zip(turn, tiles, strict=True) if tile is None]


async def test_a_slide_may_be_closed_while_it_is_read(tmp_path: Path) -> None:
    """As where an analysis is stopped: its threads read on. Few enough that closing waits for none of them."""
    path = write_mrxs(tmp_path / "slide.mrxs", EIGHT, images=8, first=0)
    async with on_disk(path) as reader:
        places = [(column, row) for row in range(8) for column in range(8)]
        reads = [asyncio.create_task(reader.read_tiles(0, places)) for _ in range(3)]
        await asyncio.sleep(0.05)
    for read in await asyncio.gather(*reads, return_exceptions=True):
        assert isinstance(read, Unavailable) or len(places) == len(read)


@pytest.mark.parametrize("scheme", ["gs", "az"])
async def test_other_clouds_are_read_as_s3_is(tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / BUCKET).mkdir()
    path = write_svs(tmp_path / BUCKET / "slide.svs", PICTURE)
    with range_server(tmp_path) as server:
        for name, value in server.other_clouds_environment.items():
            monkeypatch.setenv(name, value)
        async with on_disk(path) as local, opened(f"{scheme}://{BUCKET}/slide.svs", f"{scheme}://{BUCKET}", allow_http=True) as remote:
            expected = await regions_of(local).read(0, 0, 0, WIDTH, HEIGHT)
            np.testing.assert_array_equal(expected, await regions_of(remote).read(0, 0, 0, WIDTH, HEIGHT))


@pytest.mark.parametrize("scheme", ["s3", "http"])
async def test_a_slide_in_an_object_store_reads_as_on_disk(
    kind: Kind, path: Path, store: RangeServer, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in store.s3_environment.items():
        monkeypatch.setenv(name, value)
    root = f"s3://{BUCKET}" if scheme == "s3" else f"{store.url}/{BUCKET}"
    folder = next(parent for parent in path.parents if parent.name == BUCKET)
    uri = f"{root}/{path.relative_to(folder)}"
    if scheme == "http" and kind.several:
        with pytest.raises(InvalidInput, match="consists of several files, and a web server does not tell which"):
            async with opened(uri, root, allow_http=True):
                pass
        return
    async with on_disk(path) as local, opened(uri, root, allow_http=True) as remote:
        assert local.facts.levels == remote.facts.levels
        for level, stored in enumerate(local.facts.levels):
            expected = await regions_of(local).read(level, 0, 0, stored.width, stored.height)
            np.testing.assert_array_equal(expected, await regions_of(remote).read(level, 0, 0, stored.width, stored.height))


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.with_profile])
async def test_an_icc_profile_is_applied_on_request(name: str, tmp_path: Path) -> None:
    write = KINDS[name].with_profile
    assert write
    path = write(tmp_path, linear_profile())
    async with on_disk(path) as reader:
        plain = await regions_of(reader).read(0, 0, 0, WIDTH, HEIGHT)
        managed = await regions_of(with_managed_colours(reader)).read(0, 0, 0, WIDTH, HEIGHT)
    light = plain / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(managed - expected).max() < 2.5
    assert np.abs(managed.astype(int) - plain).max() > 40


async def test_a_slide_without_a_profile_keeps_its_colours(path: Path) -> None:
    async with on_disk(path) as reader:
        assert reader is with_managed_colours(reader)


@pytest.mark.parametrize("profile", [b"no profile", linear_profile().replace(b"RGB ", b"CMYK")], ids=["damaged", "cmyk"])
async def test_a_profile_that_cannot_be_applied_is_told(tmp_path: Path, profile: bytes) -> None:
    path = write_svs(tmp_path / "slide.svs", PICTURE, profile=profile)
    async with on_disk(path) as reader:
        with pytest.raises(InvalidSlide, match=r"ICC profile that cannot be applied.*Leave apply_icc_profile out"):
            with_managed_colours(reader)
