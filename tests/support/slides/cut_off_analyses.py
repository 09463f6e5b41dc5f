"""Analyses of a small slide that are cut off, and gone on with or merged from what they saved."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from inference_server.scheduler.port import Caller
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Checkpoint, Chunk
from tests.support.models.built_models import built_models
from tests.support.models.direct_inference import RecordedInference
from tests.support.slides.painted import paint, scattered, write_jpeg_tiff, write_svs
from tests.support.slides.tile_models import write_classifier, write_embedder, write_head, write_segmenter

# Pixels of the slide.
WIDTH, HEIGHT = 1280, 1024
# Analyses whose calls are many enough for shares of them to mean something.
REQUESTS = {
    "he_baseline": {"tile_size": 64},
    **{analysis: {"analysis": analysis} for analysis in ("pinkness", "colours", "judge", "stains")},
}


def write_inputs(folder: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
    """A slide of so many pixels, and models."""
    models = folder / "models"
    models.mkdir()
    (models / "he_baseline").symlink_to(built_models("he_baseline") / "he_baseline")
    write_classifier(models, mpp=0.5)
    write_embedder(models, mpp=0.5, stain={"method": "macenko"})
    write_head(models)
    write_segmenter(models, mpp=0.5, tile_size=72, stain={"method": "reinhard", "estimate": "tile"})
    nuclei = scattered(width * height // 6500, within=(40, 40, width - 136, height - 80), apart=25)
    picture = paint(width, height, tissue=(20, 20, width - 56, height - 50), nuclei=nuclei, noise=2.0)
    # A few stored tiles are damaged, which every run must count.
    write_svs(folder / "slide.svs", picture, tile=128, spoil=(40, 41))
    write_svs(folder / "small.svs", picture[:512, :640], tile=128)
    # Of the second level none is, which the survey reads.
    described = "Aperio Image Library v11|AppMag = 20|MPP = 0.5"
    levels = [picture, picture[::4, ::4]]
    write_jpeg_tiff(folder / "pyramid.svs", levels, description=described, rgb_components=True, tile=128, spoil=(40, 41))


async def cut_off(stream: AsyncGenerator[Any, None], until: float) -> list[Any]:
    """The events of a run that is cut off once so many of its tiles are saved; 1 for never."""
    events: list[Any] = []
    async for event in stream:
        events.append(event)
        if isinstance(event, Checkpoint) and event.tiles_total and until < 1.0 and event.tiles_done >= until * event.tiles_total:
            break
    await stream.aclose()
    return events


class Place:
    """A slide, models, and servers that see both. A server is new each time, as after a crash."""

    def __init__(self, folder: Path, inputs: Path) -> None:
        """`folder`: to write into. `inputs`: as `write_inputs` wrote them."""
        self.folder = folder
        self.inputs = inputs
        self.models = inputs / "models"
        self.slide = inputs / "slide.svs"
        self.calls: list[int] = []

    async def run(self, name: str, *, until: float = 1.0, **changes: Any) -> tuple[list[Any], Path]:
        """The events of a run that is cut off once so many tiles are saved, and where it wrote."""
        out = self.folder / "out" / name
        inference = RecordedInference(self.models)
        storage = Storage(read_roots=(str(self.folder), str(self.inputs)), write_roots=(str(self.folder / "out"),))
        analyzer = SlideAnalyzer(inference=inference, storage=storage, models=self.models)
        request = AnalysisRequest(slide_uri=str(self.slide), output_uri=str(out), checkpoints=True, request_id="r")
        events = await cut_off(analyzer.analyze(dataclasses.replace(request, **changes), Caller()), until)
        calls = [each for each in inference.requests if each.model != "judge"]
        self.calls.append(sum(len(next(iter(each.inputs.values()))) for each in calls))
        return events, out


def parts(events: list[Any]) -> tuple[str, ...]:
    """Where a run saved its parts."""
    return tuple(event.uri for event in events if isinstance(event, Checkpoint))


def streamed(events: list[Any]) -> tuple[bytes, ...]:
    """The parts that a run sent instead."""
    return tuple(
        b"".join(chunk.data for chunk in events if isinstance(chunk, Chunk) and chunk.name == event.name)
        for event in events
        if isinstance(event, Checkpoint)
    )


def result_of(events: list[Any]) -> AnalysisResult:
    assert isinstance(events[-1], AnalysisResult)
    return events[-1]
