"""Slides read from an object store: how much of them, and what becomes of failures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile

from inference_server.errors import Unavailable
from inference_server.scheduler.port import Caller
from inference_server.storage import Storage
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.readers.tiff import TiffReader
from inference_server.tasks.slides.values import AnalysisRequest, Pixels, Place, SlideLimits
from tests.support.direct_inference import DirectInference
from tests.support.range_server import RangeServer, range_server
from tests.support.slides import paint, scattered, write_jpeg_tiff, write_svs

EDGE = 3600


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RangeServer, Path]]:
    """A slide whose tissue lies in two of its corners."""
    folder = tmp_path_factory.mktemp("store")
    picture = np.concatenate([corner(3), corner(None), corner(None), corner(4)]).reshape(2, 2, EDGE // 2, EDGE // 2, 3)
    whole = np.ascontiguousarray(picture.swapaxes(1, 2).reshape(EDGE, EDGE, 3))
    described = "Aperio Image Library v11|AppMag = 20|MPP = 0.5"
    path = write_jpeg_tiff(folder / "slide.svs", [whole, whole[::2, ::2], whole[::8, ::8]], description=described, rgb_components=True)
    with range_server(folder) as server:
        yield server, path


def corner(seed: int | None) -> np.ndarray:
    edge = EDGE // 2
    if seed is None:
        return paint(edge, edge, tissue=None, noise=2)
    tissue = (200, 200, edge - 200, edge - 200)
    return paint(edge, edge, tissue=tissue, nuclei=scattered(300, within=tissue, apart=20, seed=seed), noise=5)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Place]:
    """The stored tiles that are asked for from now on."""
    read: list[Place] = []
    original = TiffReader.read_tiles

    async def read_tiles(self: TiffReader, level: int, places: Sequence[tuple[int, int]]) -> list[Pixels | None]:
        read.extend((level, *place) for place in places)
        return await original(self, level, places)

    monkeypatch.setattr(TiffReader, "read_tiles", read_tiles)
    return read


async def test_an_analysis_reads_its_tiles_and_next_to_nothing_else(
    store: tuple[RangeServer, Path], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, path = store
    storage = Storage(read_roots=(server.url,), write_roots=(), allow_http=True)
    # Decoded tiles of two columns stay, a tenth of the slide.
    limits = SlideLimits(cache_bytes=2 * (EDGE // 240) * 6 * 240 * 240 * 3)
    analyzer = SlideAnalyzer(inference=DirectInference(models), storage=storage, models=models, limits=limits)
    before = server.sent()
    read = recorded(monkeypatch)
    async for _ in analyzer.analyze(AnalysisRequest(slide_uri=f"{server.url}/slide.svs", tile_size=256), Caller()):
        pass
    after = server.sent()
    with tifffile.TiffFile(path) as tiff:
        counts = [np.array(page.databytecounts).reshape(-1, -(-page.imagewidth // 240)) for page in tiff.pages]
    used = sum(int(counts[level][row, column]) for level, column, row in set(read))
    assert len(read) > 100
    assert used <= after.body_bytes - before.body_bytes <= 1.1 * used
    # Neighbours in a row come together.
    assert after.requests - before.requests < len(read)


async def test_opening_a_slide_reads_its_directory_wherever_it_lies(store: tuple[RangeServer, Path]) -> None:
    server, path = store
    storage = Storage(read_roots=(server.url,), write_roots=(), allow_http=True)
    before = server.sent()
    async with open_slide(storage, f"{server.url}/slide.svs", SlideLimits(), Staging(storage, most_bytes=0)) as reader:
        assert EDGE == reader.facts.width
    assert server.sent().body_bytes - before.body_bytes < 16 * 1024 < path.stat().st_size / 50


async def test_a_store_that_goes_away_is_no_damage(tmp_path: Path) -> None:
    write_svs(tmp_path / "slide.svs", paint(700, 500, tissue=(50, 50, 650, 450)))
    with range_server(tmp_path) as server:
        storage = Storage(read_roots=(server.url,), write_roots=(), allow_http=True)
        async with open_slide(storage, f"{server.url}/slide.svs", SlideLimits(), Staging(storage, most_bytes=0)) as reader:
            (tmp_path / "slide.svs").unlink()
            server.forget()
            with pytest.raises(Unavailable, match=r"storage failed while .*slide.svs was read"):
                await asyncio.wait_for(reader.read_tiles(0, [(0, 0), (1, 1)]), 60)
