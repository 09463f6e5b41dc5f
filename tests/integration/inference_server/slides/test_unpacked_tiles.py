"""Tiles of some kilobytes that unpack to far more than a tile's pixels."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pyarrow
import pytest
from PIL import Image

from inference_server.storage.storage import Storage
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import SlideLimits
from tests.support.child_processes import peak_bytes, resident_bytes
from tests.support.slides.painted import level_tags, paint, tiles_of, write_tiff

EDGE, TILE = 512, 256
# What they unpack to, and what reading them may take.
UNPACKED, MOST = 192 * 2**20, 48 * 2**20


def deflated(tile: bytes) -> bytes:
    return zlib.compress(tile, 9)


def in_zstandard(tile: bytes) -> bytes:
    return bytes(pyarrow.compress(tile, "zstd", asbytes=True))


def in_lzw(tile: bytes) -> bytes:
    file = io.BytesIO()
    row = Image.frombytes("RGBA", (2**14, len(tile) // 2**16), tile)
    row.save(file, "TIFF", compression="tiff_lzw", strip_size=2 * len(tile))
    with Image.open(file) as picture:
        (start,), (length,) = picture.tag_v2[273], picture.tag_v2[279]  # type: ignore[attr-defined]
    return file.getvalue()[start : start + length]


def as_jpeg(tile: bytes) -> bytes:
    """Of a picture that is larger than its tile."""
    file = io.BytesIO()
    edge = int((UNPACKED / 3) ** 0.5) if len(tile) >= UNPACKED else TILE
    Image.new("RGB", (edge, edge), (240, 200, 220)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("compression", "pack", "is_damaged"),
    [(8, deflated, False), (32946, deflated, False), (5, in_lzw, False), (50000, in_zstandard, True), (7, as_jpeg, True)],
    ids=["deflate", "old deflate", "LZW", "Zstandard", "JPEG"],
)
async def test_a_tile_that_unpacks_to_more_than_its_pixels_takes_no_more_memory_than_others(
    tmp_path: Path, compression: int, pack: Callable[[bytes], bytes], is_damaged: bool
) -> None:
    tiles = [each.tobytes() for each in tiles_of(paint(EDGE, EDGE, tissue=(100, 100, 400, 400)), TILE)]
    stored = [pack(tiles[0] + bytes(UNPACKED - len(tiles[0]))), *(pack(each) for each in tiles[1:])]
    tags = level_tags(EDGE, EDGE, number=0, tile=TILE, compression=compression, photometric=6 if compression == 7 else 2)
    path = write_tiff(tmp_path / "slide.tif", [(tags, stored)], big=False)
    storage = Storage(read_roots=(str(tmp_path),), write_roots=())
    async with open_slide(storage, str(path), SlideLimits(), Staging(storage, most_bytes=0)) as reader:
        assert reader.facts.reader == "tiff"
        regions = Regions(reader, cache_bytes=1 << 24, most_unreadable=1.0)
        await regions.read(0, TILE, 0, TILE, EDGE)
        # The most that was held is told from now on.
        Path("/proc/self/clear_refs").write_text("5")
        held = resident_bytes(os.getpid())
        pixels = await regions.read(0, 0, 0, EDGE, EDGE)
        taken = peak_bytes(os.getpid()) - held
    assert ({(0, 0, 0)} if is_damaged else set()) == regions.unreadable
    assert taken < MOST, f"{taken >> 20} MiB"
    if not is_damaged:
        expected = openslide.OpenSlide(path).read_region((0, 0), 0, (EDGE, EDGE)).convert("RGB")
        np.testing.assert_array_equal(np.asarray(expected), pixels)
