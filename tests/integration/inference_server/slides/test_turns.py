"""Several slides at a time: the model never waits between them, memory is bounded, and one that fails harms no other."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from inference_server.errors import InvalidSlide
from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse
from inference_server.storage.storage import Storage
from inference_server.tasks.slides import checkpoints, computing
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.kinds import tile_model
from inference_server.tasks.slides.progress import ProgressMeter
from inference_server.tasks.slides.runs import Runs
from inference_server.tasks.slides.turns import Turn
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Checkpoint, Progress, SlideLimits
from tests.support.models.direct_inference import DirectInference
from tests.support.patience import until
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.tile_models import write_classifier
from tests.support.slides.written_files import contents, sent

PICTURE = paint(640, 640, tissue=(0, 0, 640, 640), nuclei=scattered(60, within=(20, 20, 620, 620), apart=25), noise=2.0)


class Workers:
    """Those of all slides: what they do beside calling the model takes no longer than a call, however long it takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Those that neither wait for the model nor call it.
        self.busy = 0
        work, call = computing._Calls.work, Turn.call

        async def counted(calls: Any) -> None:
            self.busy += 1
            try:
                await work(calls)
            finally:
                self.busy -= 1

        @contextlib.asynccontextmanager
        async def idle(turn: Turn) -> AsyncIterator[None]:
            self.busy -= 1
            try:
                async with call(turn):
                    yield
            finally:
                self.busy += 1

        monkeypatch.setattr(computing._Calls, "work", counted)
        monkeypatch.setattr(Turn, "call", idle)


class OneAtATime(DirectInference):
    """A model whose every call lasts until all is read and taken up that may be meanwhile, and which tells whose they were."""

    def __init__(self, models: Path, workers: Workers) -> None:
        super().__init__(models)
        self._engine = asyncio.Lock()
        self._workers = workers
        # Slides, in their order.
        self.calls: list[str] = []
        # What calls of a slide wait for.
        self.until: Mapping[str, Callable[[], bool]] = {}

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        slide = request.caller.client
        async with self._engine:
            response = await super().infer(request)
            await until(lambda: not self._workers.busy and self.until.get(slide, lambda: True)())
            self.calls.append(slide)
            return response


class SlowToWrite(Storage):
    """Storage that takes its time for the files of some slides: until what is told of them is so."""

    until: Mapping[str, Callable[[], bool]] = {}

    async def write(self, uri: str, content: bytes | Path) -> None:
        for slide, true in self.until.items():
            if f"/{slide}-" in uri:
                await until(true)
        await super().write(uri, content)


@dataclass(kw_only=True)
class Server:
    """Analyses slides of a folder."""

    folder: Path
    model: OneAtATime
    storage: SlowToWrite
    analyzer: SlideAnalyzer
    # Slide and stage, as they were told.
    stages: list[tuple[str, str]] = field(default_factory=list)
    # The last that was told of each slide's tiles.
    tiles: dict[str, Progress] = field(default_factory=dict)

    async def analyse(self, slide: str) -> dict[str, bytes]:
        """The files that are written."""
        out = self.folder / "out" / f"{slide}-{len(self.stages)}"
        request = AnalysisRequest(slide_uri=str(self.folder / slide), output_uri=str(out), analysis="pinkness")
        async with contextlib.aclosing(self.analyzer.analyze(request, Caller(client=slide))) as events:
            async for event in events:
                if isinstance(event, Progress) and (slide, event.stage) not in self.stages:
                    self.stages.append((slide, event.stage))
                if isinstance(event, Progress) and event.stage == "tiles":
                    self.tiles[slide] = event
        return {name: content for name, content in contents(out).items() if name != "analysis.json"}

    async def analyse_all(self, slides: Sequence[str]) -> list[dict[str, bytes]]:
        """All at once; each comes when the one before it has its survey."""
        running: list[asyncio.Task[dict[str, bytes]]] = []
        for slide in slides:
            running.append(asyncio.create_task(self.analyse(slide)))
            if slide != slides[-1]:
                await until(lambda: (slide, "tiles") in self.stages or running[-1].done())  # noqa: B023 - it is waited for here
        return await asyncio.gather(*running)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    write_classifier(tmp_path / "models", mpp=0.5)
    # Eight tiles a call, thirteen calls a slide.
    monkeypatch.setattr(tile_model, "_PIXELS_A_CALL", 8 * 64 * 64)
    for name in ("first", "second", "third"):
        write_svs(tmp_path / name, PICTURE)
    model = OneAtATime(tmp_path / "models", Workers(monkeypatch))
    storage = SlowToWrite(read_roots=(str(tmp_path),), write_roots=(str(tmp_path / "out"),))
    analyzer = SlideAnalyzer(inference=model, storage=storage, models=tmp_path / "models")
    return Server(folder=tmp_path, model=model, storage=storage, analyzer=analyzer)


@pytest.mark.parametrize("slides", [("first", "second"), ("first", "second", "third")])
async def test_between_slides_of_equal_size_the_model_does_not_wait(server: Server, slides: tuple[str, ...]) -> None:
    # None is written before the model is at the next one.
    server.storage.until = {older: partial(server.model.calls.__contains__, younger) for older, younger in itertools.pairwise(slides)}
    found = await server.analyse_all(slides)
    assert all(found[0] == each for each in found)
    assert 4 <= len(found[0])
    # Calls of the next slide, of thirteen, go before the last of the oldest only where that has fewer than two under way: two before it
    # has read its first tiles, and at its end.
    names = server.model.calls
    for older, younger in itertools.pairwise(slides):
        last = len(names) - names[::-1].index(older)
        assert names[:last].count(younger) <= 4


async def test_a_third_slide_is_not_opened_before_the_first_has_its_tiles_done(server: Server) -> None:
    server.model.until = {"first": lambda: {("second", "tissue"), ("third", "opening")} <= {*server.stages}}
    await server.analyse_all(["first", "second", "third"])
    order = server.stages.index
    assert order(("second", "tissue")) < order(("first", "writing")) < order(("third", "tissue"))


async def test_time_in_which_a_slide_waits_for_another_does_not_count_into_its_rate(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Calls alone take time.
    monkeypatch.setattr(computing, "ProgressMeter", partial(ProgressMeter, clock=lambda: float(len(server.model.calls))))
    await server.analyse_all(["first", "second"])
    first, second = server.tiles["first"], server.tiles["second"]
    assert (first.tiles_total, first.tiles_total) == (second.tiles_total, second.tiles_done)
    # It waits for as long as it works.
    assert second.tiles_per_second > 0.75 * first.tiles_per_second


async def test_surveying_and_reading_a_slide_tell_that_it_moves(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Turn] = []
    surveyed: list[int] = []
    begin = Runs.begin

    async def watched(runs: Runs) -> Any:
        begun = await begin(runs)
        surveyed.append(len(moved))
        return begun

    monkeypatch.setattr(Turn, "moved", lambda turn: moved.append(turn))
    monkeypatch.setattr(Runs, "begin", watched)
    await server.analyse("first")
    (survey,) = surveyed
    assert survey >= 1
    # Reads of tiles beside the ends of calls.
    assert len(moved) - survey > len(server.model.calls)


async def test_a_next_slide_that_is_cancelled_or_fails_harms_no_other(server: Server) -> None:
    (alone,) = await server.analyse_all(["first"])
    data = bytearray((server.folder / "second").read_bytes())
    # Every tile of it, and no directory.
    data[8 : len(data) * 3 // 4] = bytes(len(data) * 3 // 4 - 8)
    (server.folder / "damaged").write_bytes(data)
    running = asyncio.create_task(server.analyse("first"))
    await asyncio.sleep(0)
    cancelled, damaged = asyncio.create_task(server.analyse("second")), asyncio.create_task(server.analyse("damaged"))
    while ("second", "tiles") not in server.stages:
        await asyncio.sleep(0.01)
    cancelled.cancel()
    with pytest.raises(InvalidSlide):
        await damaged
    assert alone == await running
    # Nothing of them is left that others would wait for.
    assert alone == await asyncio.wait_for(server.analyse("third"), 60)


async def test_a_caller_who_goes_quiet_keeps_no_other_slide_waiting(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of checkpoints and takes none, while tiles for its next calls are read already; room is for few."""
    monkeypatch.setattr(checkpoints, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(computing, "_QUIET_SECONDS", 0.1)
    limits = SlideLimits(most_pixels_in_flight=6 * 64 * 64)
    analyzer = SlideAnalyzer(
        inference=DirectInference(server.folder / "models"), storage=server.storage, models=server.folder / "models", limits=limits
    )
    request = AnalysisRequest(slide_uri=str(server.folder / "first"), output_uri="", analysis="pinkness", checkpoints=True)
    expected = [event async for event in analyzer.analyze(request, Caller())]
    async with contextlib.aclosing(analyzer.analyze(request, Caller())) as quiet:
        while not isinstance(await anext(quiet), Checkpoint):
            pass
        other = dataclasses.replace(request, slide_uri=str(server.folder / "second"))
        async with asyncio.timeout(60):
            assert expected[-1].tiles_analyzed == (await result_of(analyzer.analyze(other, Caller()))).tiles_analyzed
        rest = [event async for event in quiet]
    # What was let go of was read again.
    assert sent(expected) == sent(rest)


async def result_of(events: AsyncIterator[Any]) -> AnalysisResult:
    """The last of an analysis' events."""
    result = [event async for event in events][-1]
    assert isinstance(result, AnalysisResult)
    return result
