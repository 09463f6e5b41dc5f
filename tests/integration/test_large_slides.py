"""The slides that benchmarks make, in small."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from benchmarks.large_slides import KINDS, write_by_libvips, write_large_slide
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import SlideLimits
from tests.support.slides.painted import paint, write_svs

EDGE = 2100
LEVELS = (0, 1, 2)
# The same islands of either.
WRITERS = {"own": write_large_slide, "vips": partial(write_by_libvips, share=0.15)}


@pytest.mark.parametrize(("writer", "size"), [("own", (900, 700)), ("own", (60, 2500)), ("own", (2600, 2000)), ("vips", (900, 700))])
async def test_tissue_is_cut_from_a_source_of_any_size(tmp_path: Path, writer: str, size: tuple[int, int]) -> None:
    width, height = size
    # Glass, but for its last two thirds.
    picture = paint(width, height, tissue=(width // 3, height // 3, width, height))
    source = write_svs(tmp_path / "source.svs", picture)
    peer = openslide.OpenSlide(WRITERS[writer](tmp_path / "large.svs", edge=EDGE, source=source))
    whole = np.asarray(peer.read_region((0, 0), 0, (EDGE, EDGE)).convert("RGB"))
    # JPEG rings where glass begins; black it is nowhere.
    assert whole.min() >= picture.min() - 40
    # Islands are of tissue, for the most part.
    assert 0.05 < (whole.min(axis=2) < 200).mean() < 0.2


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_large_slide_is_a_pyramid_that_all_read_alike(tmp_path: Path, kind: str, writer: str) -> None:
    path = WRITERS[writer](tmp_path / "large.svs", edge=EDGE, kind=kind)
    peer = openslide.OpenSlide(path)
    storage = Storage(read_roots=(str(tmp_path),), write_roots=())
    async with open_slide(storage, str(path), SlideLimits(), Staging(storage, most_bytes=0)) as reader:
        assert ("aperio", 0.25, 40.0) == (reader.facts.vendor, reader.facts.mpp_x, reader.facts.objective_power)
        assert peer.level_dimensions == tuple((level.width, level.height) for level in reader.facts.levels)
        regions = Regions(reader, cache_bytes=1 << 26, most_unreadable=0.0)
        whole = [await regions.read(level, 0, 0, EDGE >> level, EDGE >> level) for level in LEVELS]
    for level, pixels in zip(LEVELS, whole, strict=True):
        side = pixels.shape[0]
        np.testing.assert_array_equal(np.asarray(peer.read_region((0, 0), level, (side, side)).convert("RGB")), pixels)
    halved = whole[0].reshape(EDGE // 2, 2, EDGE // 2, 2, 3).mean((1, 3))
    assert np.abs(halved - whole[1]).mean() < 3
    share = (whole[2].min(axis=2) < 200).mean()
    assert 0.1 < share < 0.2


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_stored_as_it_is_called(tmp_path: Path, kind: str, writer: str) -> None:
    with tifffile.TiffFile(WRITERS[writer](tmp_path / "large.svs", edge=EDGE // 2, kind=kind)) as file:
        assert ("bigtiff" == kind, True) == (file.is_bigtiff, file.is_svs)
        for level in file.pages:
            # JPEG, of YCbCr or of RGB.
            assert (7, 6 if kind == "ycbcr" else 2) == (level.compression, level.photometric)
