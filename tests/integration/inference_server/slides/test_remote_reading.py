"""Slides read from an object store: how much of them, and what becomes of failures."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference_server.errors import Unavailable
from inference_server.scheduler.port import Caller
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.analyses import Analyses
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.survey import outline, scan_cells, survey
from inference_server.tasks.slides.values import AnalysisRequest, Checkpoint, Share, SlideLimits
from tests.support.models.direct_inference import DirectInference
from tests.support.slides.needed_bytes import needed_bytes
from tests.support.slides.painted import paint, scattered, write_jpeg_tiff, write_svs
from tests.support.slides.range_server import RangeServer, range_server
from tests.support.slides.written_files import contents

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


async def sent_over_needed(
    store: tuple[RangeServer, Path], models: Path, *, columns: int, artifacts: tuple[str, ...] = (), tile_size: int = 256
) -> tuple[float, int]:
    """Bytes that an analysis fetched over those that it needs, and its requests. `columns`: of decoded tiles that stay."""
    server, path = store
    storage = Storage(read_roots=(server.url, str(path.parent)), write_roots=(), allow_http=True)
    limits = SlideLimits(cache_bytes=columns * (EDGE // 240) * 6 * 240 * 240 * 3)
    analyzer = SlideAnalyzer(inference=DirectInference(models), storage=storage, models=models, limits=limits)
    before = server.sent()
    request = AnalysisRequest(slide_uri=f"{server.url}/slide.svs", tile_size=tile_size, artifacts=artifacts)
    async for _ in analyzer.analyze(request, Caller()):
        pass
    after, plan = server.sent(), (await Analyses(inference=DirectInference(models), models=models).prepare("", tile_size)).plan
    async with open_slide(storage, str(path), limits, Staging(storage, most_bytes=0)) as reader:
        outlined = outline(reader, AnalysisRequest(slide_uri=str(path)), plan, limits)
        slide = await survey(outlined, plan, await scan_cells(outlined, plan), call_share=1.0)
    assert len(slide.tiles) > 50
    return (after.body_bytes - before.body_bytes) / needed_bytes(path, slide, plan, overlay=not artifacts), after.requests - before.requests


async def test_an_analysis_reads_the_tiles_that_it_needs_and_next_to_nothing_else(store: tuple[RangeServer, Path], models: Path) -> None:
    share, requests = await sent_over_needed(store, models, columns=2)
    assert 1 <= share <= 1.1
    # Neighbours in a row come together.
    assert requests < 100


async def test_stored_tiles_of_the_next_columns_come_with_those_before_them(tmp_path: Path, models: Path) -> None:
    wide, high = 5600, 2000
    tissue = (100, 100, wide - 100, high - 100)
    whole = paint(wide, high, tissue=tissue, nuclei=scattered(300, within=tissue, apart=20, seed=3), noise=5)
    described = "Aperio Image Library v11|AppMag = 20|MPP = 0.5"
    path = write_jpeg_tiff(tmp_path / "slide.svs", [whole, whole[::2, ::2], whole[::8, ::8]], description=described, rgb_components=True)
    with range_server(tmp_path) as server:
        share, requests = await sent_over_needed((server, path), models, columns=2)
        rows, columns = -(-high // 240), -(-wide // 1024)
        assert 1 <= share <= 1.1
        # Without them each row has one for each column of 1,024 px.
        assert requests < rows * columns


async def test_shares_of_a_slide_fetch_none_of_the_tiles_of_others(store: tuple[RangeServer, Path], models: Path, tmp_path: Path) -> None:
    server, path = store
    storage = Storage(read_roots=(server.url, str(path.parent)), write_roots=(str(tmp_path),), allow_http=True)
    analyzer = SlideAnalyzer(inference=DirectInference(models), storage=storage, models=models)

    async def sent(share: Share) -> int:
        before = server.sent().body_bytes
        asked = AnalysisRequest(
            slide_uri=f"{server.url}/slide.svs", tile_size=256, share=share, checkpoints=True, output_uri=str(tmp_path / f"{share.index}")
        )
        async for _ in analyzer.analyze(asked, Caller()):
            pass
        return server.sent().body_bytes - before

    shares = [await sent(Share(index=index, count=4)) for index in range(4)]
    # Those along their borders are fetched by both, and the survey by each.
    assert sum(shares) < 1.1 * await sent(Share())


async def test_no_picture_is_read_where_no_overlay_is_wanted(store: tuple[RangeServer, Path], models: Path) -> None:
    share, _ = await sent_over_needed(store, models, columns=2, artifacts=("heatmap.png",))
    assert 1 <= share <= 1.1


async def test_tiles_that_are_read_twice_are_seen_in_what_was_read(store: tuple[RangeServer, Path], models: Path) -> None:
    # Small ones, so that most stored tiles lie below several calls.
    share, _ = await sent_over_needed(store, models, columns=0, tile_size=128)
    assert share > 1.1


async def test_opening_a_slide_reads_its_directory_wherever_it_lies(store: tuple[RangeServer, Path]) -> None:
    server, path = store
    storage = Storage(read_roots=(server.url,), write_roots=(), allow_http=True)
    before = server.sent()
    async with open_slide(storage, f"{server.url}/slide.svs", SlideLimits(), Staging(storage, most_bytes=0)) as reader:
        assert EDGE == reader.facts.width
    assert server.sent().body_bytes - before.body_bytes < 16 * 1024 < path.stat().st_size / 50


async def test_a_store_that_goes_away_is_no_damage(tmp_path: Path) -> None:
    write_svs(tmp_path / "slide.svs", paint(700, 500, tissue=(50, 50, 650, 450)))
    with contextlib.ExitStack() as running:
        server = running.enter_context(range_server(tmp_path))
        storage = Storage(read_roots=(server.url,), write_roots=(), allow_http=True)
        async with open_slide(storage, f"{server.url}/slide.svs", SlideLimits(), Staging(storage, most_bytes=0)) as reader:
            running.close()
            with pytest.raises(Unavailable, match=r"storage failed while .*slide.svs was read"):
                await asyncio.wait_for(reader.read_tiles(0, [(0, 0), (1, 1)]), 60)


@pytest.fixture(scope="module")
def single_level(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RangeServer, Path]]:
    """A slide without a smaller level that a survey could read."""
    folder = tmp_path_factory.mktemp("single")
    path = write_svs(folder / "slide.svs", np.tile(corner(5), (2, 2, 1))[:2700])
    with range_server(folder) as server:
        yield server, path


@pytest.mark.parametrize("artifacts", [(), ("tiles.parquet",)], ids=["all", "no picture"])
@pytest.mark.parametrize(("room", "least", "most"), [(1 << 30, 1.0, 1.1), (1000, 1.5, 4.0)], ids=["copied", "no room"])
async def test_a_slide_of_one_level_is_fetched_once_where_there_is_room(
    single_level: tuple[RangeServer, Path], models: Path, tmp_path: Path, artifacts: tuple[str, ...], room: int, least: float, most: float
) -> None:
    server, path = single_level
    storage = Storage(read_roots=(server.url, str(path.parent)), write_roots=(str(tmp_path),), allow_http=True)
    limits = SlideLimits(cache_bytes=4 * 1024 * 1024)
    staging = Staging(storage, most_bytes=room, folder=tmp_path / "staging")
    analyzer = SlideAnalyzer(inference=DirectInference(models), storage=storage, models=models, limits=limits, staging=staging)

    async def sent(uri: str, name: str) -> float:
        before = server.sent().body_bytes
        request = AnalysisRequest(slide_uri=uri, tile_size=256, artifacts=artifacts, output_uri=str(tmp_path / name))
        async for _ in analyzer.analyze(request, Caller()):
            pass
        return (server.sent().body_bytes - before) / path.stat().st_size

    assert 0 == await sent(str(path), "near")
    assert least <= await sent(f"{server.url}/slide.svs", "far") <= most
    near, far = (contents(tmp_path / name) for name in ("near", "far"))
    assert near.pop("analysis.json").replace(str(path).encode(), f"{server.url}/slide.svs".encode()) == far.pop("analysis.json")
    assert near == far
    # What is asked about it needs its headers alone, and who analyses it next finds it here.
    before = server.sent().body_bytes
    facts = await analyzer.info(f"{server.url}/slide.svs")
    assert (1, True) == (len(facts.levels), server.sent().body_bytes - before < 64 * 1024)
    if most < 2:
        assert await sent(f"{server.url}/slide.svs", "again") < 0.05


async def test_what_goes_on_with_tiles_that_are_saved_copies_no_slide(
    single_level: tuple[RangeServer, Path], models: Path, tmp_path: Path
) -> None:
    server, _ = single_level
    storage = Storage(read_roots=(server.url,), write_roots=(str(tmp_path),), allow_http=True)
    staging = Staging(storage, most_bytes=1 << 30, folder=tmp_path / "staging")
    limits = SlideLimits(cache_bytes=4 * 1024 * 1024)
    first = AnalysisRequest(slide_uri=f"{server.url}/slide.svs", checkpoints=True, output_uri=str(tmp_path / "first"), tile_size=256)
    sent = []
    saved: tuple[str, ...] = ()
    for name in ("first", "second"):
        analyzer = SlideAnalyzer(inference=DirectInference(models), storage=storage, models=models, limits=limits, staging=staging)
        request = replace(first, output_uri=str(tmp_path / name), resume_uris=saved, artifacts=("tiles.parquet",))
        # Not as one whose copy is there already.
        staging = Staging(storage, most_bytes=1 << 30, folder=tmp_path / "another")
        before = server.sent().body_bytes
        events = [event async for event in analyzer.analyze(request, Caller())]
        sent.append(server.sent().body_bytes - before)
        saved = tuple(event.uri for event in events if isinstance(event, Checkpoint))
    assert sent[1] < 0.02 * sent[0]
