"""Calls whose tiles are read together: what they hold of memory, for how long, and that each tile is read once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse
from inference_server.storage.storage import Storage
from inference_server.tasks.slides import checkpoints, computing, events
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.findings import AnalysisPlan
from inference_server.tasks.slides.readers.tiff import TiffReader
from inference_server.tasks.slides.survey import Slide, read_batch
from inference_server.tasks.slides.tiling import Tile
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Checkpoint, Pixels, Position, SlideLimits
from tests.support.models.direct_inference import DirectInference
from tests.support.patience import PATIENCE_SECONDS, until
from tests.support.slides.painted import paint, write_svs
from tests.support.slides.tile_models import write_classifier

TILES = 25
NEVER = 3600.0


class SlowModel(DirectInference):
    """Tells how many of its calls ran at the same time at most; some of them take long."""

    def __init__(self, models: Path) -> None:
        super().__init__(models)
        # Seconds by the number of the call.
        self.slow: dict[int, float] = {}
        self.calls, self.running, self.most = 0, 0, 0

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        seconds = self.slow.get(self.calls, 0.0)
        self.calls, self.running = self.calls + 1, self.running + 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(seconds)
        try:
            return await super().infer(request)
        finally:
            self.running -= 1


@dataclass(kw_only=True)
class Server:
    """Analyses slides of 25 tiles, and tells which pixels it has read."""

    folder: Path
    model: SlowModel
    # Of each read, in its order: how many tiles, and the pixels while anything holds them.
    reads: list[int] = field(default_factory=list)
    pixels: list[weakref.ref[Any]] = field(default_factory=list)

    def analyzer(self, **limits: int) -> SlideAnalyzer:
        storage = Storage(read_roots=(str(self.folder),), write_roots=())
        return SlideAnalyzer(inference=self.model, storage=storage, models=self.folder / "models", limits=SlideLimits(**limits))

    def analyse(self, analyzer: SlideAnalyzer) -> AsyncGenerator[Any]:
        """The events; a checkpoint after each call."""
        request = AnalysisRequest(slide_uri=str(self.folder / "slide"), output_uri="", analysis="pinkness", checkpoints=True)
        return analyzer.analyze(request, Caller())

    async def read(self, slide: Slide, plan: AnalysisPlan, tiles: Sequence[Tile]) -> Pixels:
        """As the analysis does."""
        pixels = await read_batch(slide, plan, tiles)
        self.reads.append(len(tiles))
        self.pixels.append(weakref.ref(pixels))
        return pixels

    def holds_pixels(self) -> bool:
        gc.collect()
        return any(pixels() is not None for pixels in self.pixels)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    write_classifier(tmp_path / "models", mpp=0.5)
    write_svs(tmp_path / "slide", paint(320, 320, tissue=(0, 0, 320, 320), noise=2.0))
    server = Server(folder=tmp_path, model=SlowModel(tmp_path / "models"))
    monkeypatch.setattr(computing, "read_batch", server.read)
    monkeypatch.setattr(checkpoints, "_LEAST_SECONDS", 0.0)
    return server


async def quiet_after_a_checkpoint(analysis: AsyncGenerator[Any]) -> None:
    """Take no event after the first checkpoint of tiles."""
    seen = 0
    while seen < 2:
        seen += isinstance(await anext(analysis), Checkpoint)


async def finished(analysis: AsyncGenerator[Any]) -> AnalysisResult:
    result = [event async for event in analysis][-1]
    assert isinstance(result, AnalysisResult)
    return result


async def test_nothing_that_was_read_is_held_for_a_caller_who_has_gone_quiet(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "_QUIET_SECONDS", 0.1)
    # Events that wait for the caller.
    monkeypatch.setattr(events, "_MOST_WAITING", 1)
    async with contextlib.aclosing(server.analyse(server.analyzer(calls_in_flight=1))) as quiet:
        await quiet_after_a_checkpoint(quiet)
        await until(lambda: not server.holds_pixels())
        assert sum(server.reads) > server.model.calls
        assert TILES == (await finished(quiet)).tiles_analyzed


async def test_a_caller_who_has_gone_quiet_keeps_no_room_for_tiles_that_are_computed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computing, "_QUIET_SECONDS", NEVER)
    # Each call is read alone, and holds all the room there is.
    monkeypatch.setattr(checkpoints, "CALL_SHARE", 0.2)
    analyzer = server.analyzer(most_pixels_in_flight=1)
    async with contextlib.aclosing(server.analyse(analyzer)) as quiet:
        await quiet_after_a_checkpoint(quiet)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert TILES == (await finished(server.analyse(analyzer))).tiles_analyzed


async def test_a_model_that_takes_long_has_no_tile_read_twice(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a caller who goes quiet does."""
    monkeypatch.setattr(computing, "_QUIET_SECONDS", 1.0)
    # The second of those whose tiles are read first.
    server.model.slow = {1: 1.5}
    result = await finished(server.analyse(server.analyzer(calls_in_flight=1)))
    assert max(server.reads) > 1
    assert TILES == sum(server.reads) == result.tiles_analyzed


async def test_tiles_that_are_read_again_do_not_cost_those_beside_them_their_place_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored tiles below two columns of the analysis are kept from the one to the other, however often the first is read."""
    write_classifier(tmp_path / "models", mpp=0.5, overlap=32)
    write_svs(tmp_path / "slide", paint(320, 320, tissue=(0, 0, 320, 320), noise=2.0), tile=16)
    server, stored = Server(folder=tmp_path, model=SlowModel(tmp_path / "models")), list[Position]()
    read_tiles = TiffReader.read_tiles

    async def recorded(reader: TiffReader, level: int, places: Sequence[Position], soon: Sequence[Position] = ()) -> list[Pixels | None]:
        stored.extend(places)
        return await read_tiles(reader, level, places, soon)

    monkeypatch.setattr(TiffReader, "read_tiles", recorded)
    monkeypatch.setattr(computing, "read_batch", server.read)
    monkeypatch.setattr(checkpoints, "_LEAST_SECONDS", 0.0)
    counts = []
    for quiet_seconds, pause in ((NEVER, 0.0), (0.002, 0.01)):
        stored.clear()
        server.reads.clear()
        monkeypatch.setattr(computing, "_QUIET_SECONDS", quiet_seconds)
        async for _ in server.analyse(server.analyzer(calls_in_flight=1, cache_bytes=200_000)):
            await asyncio.sleep(pause)
        counts.append((len(stored), sum(server.reads)))
    (stored_at_once, tiles_at_once), (stored_again, tiles_again) = counts
    assert tiles_again > tiles_at_once
    assert stored_at_once == stored_again


async def test_tiles_that_find_no_room_are_not_computed_beside_others(server: Server) -> None:
    server.model.slow = dict.fromkeys(range(TILES), 0.01)
    result = await finished(server.analyse(server.analyzer(most_pixels_in_flight=1, calls_in_flight=2)))
    assert max(server.reads) > 1
    assert TILES == result.tiles_analyzed
    assert 1 == server.model.most
