"""Several slides: how long no model call runs between them, and how much memory a server takes for one, two and four at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import grpc
from lamina.v1 import slides_pb2, slides_pb2_grpc

from benchmarks.large_slides import write_large_slide
from benchmarks.support.slides.measures import BUCKET, LIMITS, Bench, analysed, timed
from inference_server.models.builders import BUILDERS
from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse, ModelFacts
from inference_server.scheduler.registry import ServingModels
from inference_server.tasks.slides.manifest import BUILT_IN
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import AnalysisRequest
from tests.support.child_processes import peak_bytes
from tests.support.inference_server.server_process import running_server

MOST_MEMORY, MOST_GROWTH = 1.2e9, 1.1
_TURNS = 3


@dataclass(kw_only=True)
class Watched:
    """Inference whose calls are written down."""

    inner: ServingModels
    # Begin and end of each call.
    calls: list[tuple[float, float]] = field(default_factory=list)

    def facts(self, model: str, version: str = "") -> ModelFacts:
        """As the models tell them."""
        return self.inner.facts(model, version)

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """One call."""
        begun = time.perf_counter()
        try:
            return await self.inner.infer(request)
        finally:
            self.calls.append((begun, time.perf_counter()))

    def idle(self) -> list[float]:
        """Seconds between calls in which none ran, the longest first."""
        gaps, until = [], min(begun for begun, _ in self.calls)
        for begun, ended in sorted(self.calls):
            gaps.append(max(0.0, begun - until))
            until = max(until, ended)
        return sorted(gaps, reverse=True)


async def edge_of(bench: Bench) -> int:
    """The longest side of the slide, in pixels."""
    async with open_slide(bench.storage, bench.uri, LIMITS, Staging(bench.storage, most_bytes=0)) as reader:
        return max(reader.facts.width, reader.facts.height)


async def several(bench: Bench) -> None:
    """Slides one after the other and two at a time, as a bridge with so many places asks for them."""
    edge = await edge_of(bench)
    write_large_slide(bench.folder / BUCKET / "half.svs", edge=edge * 5 // 7)
    await analysed(bench, BUILT_IN, 256)  # warm
    for kind, slides in (("alike", ["large"] * 3), ("of two sizes", ["large", "half", "large", "half"])):
        for at_a_time in (1, 2):
            watched = Watched(inner=bench.models)
            seconds = await in_a_row(bench, watched, slides, at_a_time)
            idle = watched.idle()
            measured = f"{seconds:.1f} s; no call for {idle[0]:.2f} s at the longest, {sum(idle):.2f} s in all"
            bench.rows.add(f"{len(slides)} slides {kind}, {at_a_time} at a time", measured)


async def in_a_row(bench: Bench, watched: Watched, slides: Sequence[str], at_a_time: int) -> float:
    """Analyse slides in their order; returns the seconds that it took."""
    analyzer = bench.analyzer(watched)

    async def analyse(names: Sequence[str]) -> None:
        for name in names:
            place = bench.folder / "several" / name
            request = AnalysisRequest(slide_uri=f"s3://{BUCKET}/{name}.svs", output_uri=str(place), tile_size=256)
            async for _ in analyzer.analyze(request, Caller()):
                pass

    return (await timed(analyse, [[name] for name in slides], at_a_time=at_a_time)).seconds


def peak_memory(folder: Path, slide: Path, *, at_a_time: int = 1, tile_size: int = 0) -> int:
    """Of a server that analyses a slide, or so many of its kind at the same time, in bytes. `tile_size`: 0 for the analysis' own."""
    roots = ("--services", "slides", "--read-roots", str(slide.resolve().parent), "--write-roots", str(folder))
    models = folder / "he_baseline_alone"
    if not models.exists():
        models.mkdir()
        BUILDERS[BUILT_IN](models)
    with running_server(models, folder, *roots) as server, grpc.insecure_channel(server.grpc) as channel:
        server.wait_for("model_ready", seconds=120)

        def analyse(number: int) -> None:
            place = str(folder / f"out{number}")
            request = slides_pb2.AnalyzeSlideRequest(slide_uri=str(slide.resolve()), output_uri=place, tile_size=tile_size)
            for _ in slides_pb2_grpc.SlideServiceStub(channel).AnalyzeSlide(request, wait_for_ready=True):
                pass

        with ThreadPoolExecutor(at_a_time) as callers:
            list(callers.map(analyse, range(at_a_time)))
        return peak_bytes(server.process.pid)


def memory(bench: Bench, edge: int, *, own: bool) -> None:
    """Peak memory for the slide, for several at the same time, with tiles of every size, and for a quarter of it.

    `edge`: of the slide; `own`: whether it is another than `large_slides.py` makes, so that a quarter has other tissue.
    """
    quarter = write_large_slide(bench.folder / BUCKET / "quarter.svs", edge=edge // 2)
    # By turns, and the medians: how threads meet moves the peak by some percent.
    peaks = [[peak_memory(bench.folder, path) for path in (quarter, bench.path)] for _ in range(_TURNS)]
    small, large = (round(median(each)) for each in zip(*peaks, strict=True))
    held = {"peak memory of the server": large}
    for at_a_time, tile_size in ((2, 0), (4, 0), (4, 64), (4, 256), (4, 2048)):
        tiles = f", tiles of {tile_size:,} px" if tile_size else ""
        held[f"the same with {at_a_time} slides at a time{tiles}"] = peak_memory(
            bench.folder, bench.path, at_a_time=at_a_time, tile_size=tile_size
        )
    for what, bytes_held in held.items():
        bench.rows.add(what, f"{bytes_held / 1e6:,.0f} MB", bar=f"{MOST_MEMORY / 1e6:,.0f} MB", met=bytes_held <= MOST_MEMORY)
    growth = large / small
    measured = f"{growth:.2f} ({small / 1e6:,.0f} MB)"
    if own:
        bench.rows.add(f"one over a slide that was made, of {edge // 2:,} px", measured)
    else:
        bench.rows.add("one over a quarter of its area", measured, bar=f"{MOST_GROWTH}", met=growth <= MOST_GROWTH)
