"""Two analyses that are to write to one place: their files have the same names."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from inference_server.errors import OutputTaken
from inference_server.scheduler.port import Caller
from inference_server.storage.storage import Storage
from inference_server.tasks.slides import output_places
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult
from tests.support.models.direct_inference import DirectInference
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.tile_models import write_classifier

PICTURE = paint(320, 320, tissue=(0, 0, 320, 320), nuclei=scattered(20, within=(20, 20, 300, 300), apart=25), noise=2.0)


class HeldStorage(Storage):
    """Storage that writes nothing until it is let."""

    def __init__(self, folder: Path) -> None:
        super().__init__(read_roots=(str(folder),), write_roots=(str(folder / "out"),))
        self.writes, self.let = asyncio.Event(), asyncio.Event()

    async def write(self, uri: str, content: bytes | Path) -> None:
        self.writes.set()
        await self.let.wait()
        await super().write(uri, content)


class Desk:
    """Analyses one slide into places of a folder."""

    def __init__(self, folder: Path) -> None:
        write_classifier(folder / "models", mpp=0.5)
        write_svs(folder / "slide", PICTURE)
        self.folder = folder
        self.storage = HeldStorage(folder)
        models = folder / "models"
        self._analyzer = SlideAnalyzer(inference=DirectInference(models), storage=self.storage, models=models)

    def begin(self, place: str) -> asyncio.Task[AnalysisResult]:
        return asyncio.create_task(self._analyse(place))

    async def _analyse(self, place: str) -> AnalysisResult:
        request = AnalysisRequest(slide_uri=str(self.folder / "slide"), output_uri=f"{self.folder}/out/{place}", analysis="pinkness")
        async with contextlib.aclosing(self._analyzer.analyze(request, Caller())) as events:
            last = [event async for event in events][-1]
        assert isinstance(last, AnalysisResult)
        return last


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(output_places, "_PATIENCE_SECONDS", 0.2)
    return Desk(tmp_path)


async def test_a_place_that_another_analysis_writes_to_is_refused_until_that_has_ended(desk: Desk) -> None:
    first = desk.begin("a")
    await desk.storage.writes.wait()
    with pytest.raises(OutputTaken, match=r"/out/b/../a/ now, .* ask again once it has ended"):
        await desk.begin("b/../a/")
    desk.storage.let.set()
    assert len((await first).artifacts) == len((await desk.begin("b")).artifacts)
    await desk.begin("a")


async def test_a_call_that_is_made_again_waits_for_the_one_that_was_cancelled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_places, "_PATIENCE_SECONDS", 60)
    first = desk.begin("a")
    await desk.storage.writes.wait()
    again = desk.begin("a")
    await asyncio.sleep(0.05)
    first.cancel()
    desk.storage.let.set()
    assert (await again).artifacts
    assert first.cancelled()
