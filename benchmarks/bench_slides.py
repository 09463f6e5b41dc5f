"""How fast is a slide of 100,000 × 100,000 px read from an object store and analysed, and in how much memory?

- Raw tiles from a local S3, a server that keeps up. Bar: 10,000/s.
- Tiles read from disk and decoded over simplejpeg alone on the same bytes, both in two threads, in turns. Bar: 0.9.
- `he_baseline` on tiles of 256 px, its tiles and the whole, from S3: over the slower of reading without a model and the model without
  reading, in the same run. Bar: 0.8, and 500 tiles/s.
- A classifier of ResNet-18's shape over its engine alone. Bar: 0.9.
- Peak memory of a server that analyses the slide, and one of a quarter of its area. Bars: 1.2 GB, and 10 % of each other.
- Slides one after the other and two at a time: how long no model call runs between them. No bar.
- Bytes that were read over those of the tiles that an analysis needs. Bar: 1.1.

Run: python benchmarks/bench_slides.py [--check] [--parts raw,decode,he_baseline,classifier,several,memory] [--slide FILE] [--edge 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TypeVar

import grpc
import simplejpeg
from lamina.v1 import slides_pb2, slides_pb2_grpc
from large_slides import write_large_slide
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table
from shaped_models import SMALL_RESNET, build

sys.path.insert(0, str(Path(__file__).parents[1]))

from inference_server.engine.runtimes import discover
from inference_server.engine.selection import EngineSelector
from inference_server.models.builders import BUILDERS
from inference_server.models.repository import ModelRepository
from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse, ModelFacts
from inference_server.scheduler.registry import ServingModels
from inference_server.storage import Storage
from inference_server.tasks.slides.analyses import Analyses
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.findings import AnalysisPlan, TileAnalysis
from inference_server.tasks.slides.kinds import he_baseline
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.readers.tiff import TiffReader
from inference_server.tasks.slides.survey import Slide, outline, read_batch, scan_cells, survey
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Progress, SlideLimits
from tests.support.needed_bytes import needed_bytes
from tests.support.range_server import RangeServer, range_server
from tests.support.server_process import running_server

BUCKET = "slides"
LEAST_RAW, LEAST_DECODED, LEAST_OVER_SLOWER, LEAST_TILES, LEAST_CLASSIFIED = 10_000.0, 0.9, 0.8, 500.0, 0.9
MOST_MEMORY, MOST_GROWTH, MOST_READ = 1.2e9, 1.1, 1.1
_LIMITS = SlideLimits()
_ROUNDS = 5
T = TypeVar("T")


@dataclass(kw_only=True)
class Rows:
    """What was measured, and whether the bars are met."""

    told: list[tuple[str, str, str, str]] = field(default_factory=list)
    met: bool = True

    def add(self, what: str, measured: str, *, bar: str = "", met: bool = True) -> None:
        """One line."""
        self.told.append((what, measured, bar, ("met" if met else "MISSED") if bar else ""))
        self.met &= met


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the parts share."""

    folder: Path
    server: RangeServer
    storage: Storage
    models: ServingModels
    rows: Rows

    @property
    def analyses(self) -> Analyses:
        """Of the repository."""
        return Analyses(inference=self.models, models=self.folder / "models")

    @property
    def uri(self) -> str:
        """The slide in the object store."""
        return f"s3://{BUCKET}/large.svs"

    @asynccontextmanager
    async def slide(self, plan: AnalysisPlan) -> AsyncIterator[Slide]:
        """Surveyed."""
        async with open_slide(self.storage, self.uri, _LIMITS, Staging(self.storage, most_bytes=0)) as reader:
            outlined = outline(reader, AnalysisRequest(slide_uri=self.uri), plan, _LIMITS)
            yield await survey(outlined, plan, await scan_cells(outlined, plan), call_share=1.0)


async def per_second(work: Callable[[Sequence[T]], Awaitable[object]], batches: Iterable[Sequence[T]], *, at_a_time: int) -> float:
    """Items a second of batches that are worked on at the same time."""
    waiting, done = iter(batches), 0

    async def one() -> None:
        nonlocal done
        for batch in waiting:
            await work(batch)
            done += len(batch)

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(at_a_time)))
    return done / (time.perf_counter() - begun)


async def raw_tiles(bench: Bench) -> None:
    """Compressed tiles of a block of the slide, from S3."""
    async with open_slide(bench.storage, bench.uri, _LIMITS, Staging(bench.storage, most_bytes=0)) as reader:
        assert isinstance(reader, TiffReader)
        level = reader.facts.levels[0]
        half = (min(level.columns, 256), min(level.rows, 128))
        blocks = [
            [(column + x, row + y) for y in range(4) for x in range(16)]
            for row in range(0, half[1] - 3, 4)
            for column in range(0, half[0] - 15, 16)
        ]
        rates = [await per_second(lambda block: reader.fetch(0, block), blocks, at_a_time=8) for _ in range(_ROUNDS)]
    rate = median(rates)
    bench.rows.add("raw tiles from a local S3", f"{rate:,.0f}/s", bar=f"{LEAST_RAW:,.0f}", met=rate >= LEAST_RAW)


def decode_alone(batch: Sequence[bytes]) -> None:
    """As many tiles at a time as the reader holds."""
    _ = [simplejpeg.decode_jpeg(each) for each in batch]


async def decoded_tiles(bench: Bench) -> None:
    """Tiles read from disk, where no server wants the cores, and decoded; over simplejpeg alone."""
    plan = he_baseline.plan_of(256)
    path = (bench.folder / BUCKET / "large.svs").resolve()
    disk = Storage(read_roots=(str(path.parent),), write_roots=())
    async with bench.slide(plan) as slide, open_slide(disk, str(path), _LIMITS, Staging(disk, most_bytes=0)) as reader:
        assert isinstance(reader, TiffReader)
        places = [(tile.x // 256, tile.y // 256) for tile in slide.tiles[:1024]]
        batches = [places[start : start + 32] for start in range(0, len(places), 32)]
        whole = [reader.stored(slide.grid.level).as_jpeg(tile) for tile in await reader.fetch(slide.grid.level, places)]
        ours, alone = [], []
        with ThreadPoolExecutor(2) as threads:
            for _ in range(_ROUNDS):
                ours.append(await per_second(lambda batch: reader.read_tiles(slide.grid.level, batch), batches, at_a_time=2))
                begun = time.perf_counter()
                for _ in threads.map(decode_alone, (whole[start : start + 32] for start in range(0, len(whole), 32))):
                    pass
                alone.append(len(whole) / (time.perf_counter() - begun))
    share = median(mine / other for mine, other in zip(ours, alone, strict=True))
    measured = f"{share:.2f} ({median(ours):,.0f} of {median(alone):,.0f}/s)"
    bench.rows.add("read from disk and decoded, over simplejpeg alone", measured, bar=f"{LEAST_DECODED}", met=share >= LEAST_DECODED)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """One analysis from end to end."""

    tiles: int
    seconds: float
    # By stage.
    stages: dict[str, float]

    @property
    def rate(self) -> float:
        """Tiles a second while tiles are analysed."""
        return self.tiles / self.stages["tiles"]


async def analysed(bench: Bench, analysis: str, tile_size: int) -> Whole:
    """Run it."""
    analyzer = SlideAnalyzer(inference=bench.models, storage=bench.storage, models=bench.folder / "models")
    request = AnalysisRequest(slide_uri=bench.uri, output_uri=str(bench.folder / "out"), analysis=analysis, tile_size=tile_size)
    stages: dict[str, float] = {}
    stage, begun = "", time.perf_counter()
    since, tiles = begun, 0
    async for event in analyzer.analyze(request, Caller()):
        now = time.perf_counter()
        if isinstance(event, Progress) and event.stage != stage:
            stages[stage] = stages.get(stage, 0.0) + now - since
            stage, since = event.stage, now
        if isinstance(event, AnalysisResult):
            tiles = event.tiles_analyzed
    stages[stage] = stages.get(stage, 0.0) + time.perf_counter() - since
    return Whole(tiles=tiles, seconds=time.perf_counter() - begun, stages=stages)


async def apart(bench: Bench, slide: Slide, analysis: TileAnalysis, most: int) -> tuple[float, float]:
    """Tiles a second that are read without a model, and that the model takes without reading."""
    plan, batches = analysis.plan, slide.batches[:most]
    pixels = await read_batch(slide, plan, batches[0])

    async def infer(batch: Sequence[object]) -> None:
        inputs = analysis.inputs(pixels[: len(batch)])
        version = bench.models.facts(plan.model).version
        await bench.models.infer(InferenceRequest(model=plan.model, version=version, inputs=inputs, outputs=plan.outputs, caller=Caller()))

    at_a_time = _LIMITS.calls_in_flight
    reading = await per_second(lambda batch: read_batch(slide, plan, batch), batches, at_a_time=at_a_time)
    return reading, await per_second(infer, batches, at_a_time=at_a_time)


async def whole_slides(bench: Bench) -> None:
    """`he_baseline` from end to end, between two measurements of its halves."""
    prepared = await bench.analyses.prepare(he_baseline.NAME, 256)
    plan = prepared.plan
    async with bench.slide(plan) as slide:
        analysis = await prepared.begin(slide)
        before = await apart(bench, slide, analysis, 200)
        sent = bench.server.sent().body_bytes
        whole = await analysed(bench, he_baseline.NAME, 256)
        sent = bench.server.sent().body_bytes - sent
        after = await apart(bench, slide, analysis, 200)
        needed = needed_bytes(bench.folder / BUCKET / "large.svs", slide, plan)
    reading, computing = (sum(pair) / 2 for pair in zip(before, after, strict=True))
    slower = min(reading, computing)
    bench.rows.add("he_baseline: reading alone; model alone", f"{reading:,.0f}; {computing:,.0f} tiles/s")
    of_tiles, of_all = whole.rate / slower, whole.tiles / whole.seconds / slower
    bench.rows.add("he_baseline: while tiles are analysed, over the slower", f"{of_tiles:.2f} ({whole.rate:,.0f} tiles/s)")
    bench.rows.add(
        "he_baseline: end to end, over the slower",
        f"{of_all:.2f} ({whole.tiles:,} tiles in {whole.seconds:.1f} s)",
        bar=f"{LEAST_OVER_SLOWER}",
        met=of_all >= LEAST_OVER_SLOWER,
    )
    rate = whole.tiles / whole.seconds
    bench.rows.add("he_baseline: end to end", f"{rate:,.0f} tiles/s", bar=f"{LEAST_TILES:.0f}", met=rate >= LEAST_TILES)
    told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in whole.stages.items() if name)
    bench.rows.add("he_baseline: seconds by stage", told)
    share = sent / needed
    bench.rows.add("bytes read over those of the tiles used", f"{share:.3f}", bar=f"{MOST_READ}", met=share <= MOST_READ)


async def classified(bench: Bench) -> None:
    """A classifier from end to end, over its engine alone."""
    prepared = await bench.analyses.prepare(SMALL_RESNET)
    async with bench.slide(prepared.plan) as slide:
        analysis = await prepared.begin(slide)
        before = await apart(bench, slide, analysis, 40)
        whole = await analysed(bench, SMALL_RESNET, 0)
        after = await apart(bench, slide, analysis, 40)
    alone = (before[1] + after[1]) / 2
    share = whole.tiles / whole.seconds / alone
    measured = f"{share:.2f} ({whole.tiles / whole.seconds:,.0f} of {alone:,.0f} tiles/s)"
    bench.rows.add("ResNet-18's shape: end to end over its engine", measured, bar=f"{LEAST_CLASSIFIED}", met=share >= LEAST_CLASSIFIED)
    bench.rows.add("ResNet-18's shape: while tiles are analysed", f"{whole.rate / alone:.2f}")


def peak_memory(folder: Path, slide: Path) -> int:
    """Of a server that analyses one slide, in bytes."""
    roots = ("--services", "slides", "--read-roots", str(slide.resolve().parent), "--write-roots", str(folder))
    models = folder / "he_baseline_alone"
    if not models.exists():
        models.mkdir()
        BUILDERS[he_baseline.NAME](models)
    with running_server(models, folder, *roots) as server, grpc.insecure_channel(server.grpc) as channel:
        server.wait_for("model_ready", seconds=120)
        request = slides_pb2.AnalyzeSlideRequest(slide_uri=str(slide.resolve()), output_uri=str(folder / "out"))
        for _ in slides_pb2_grpc.SlideServiceStub(channel).AnalyzeSlide(request, wait_for_ready=True):
            pass
        status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def memory(bench: Bench, edge: int) -> None:
    """Peak memory for the slide and for a quarter of it."""
    quarter = write_large_slide(bench.folder / BUCKET / "quarter.svs", edge=edge // 2)
    small, large = (peak_memory(bench.folder, path) for path in (quarter, bench.folder / BUCKET / "large.svs"))
    bench.rows.add("peak memory of the server", f"{large / 1e6:,.0f} MB", bar=f"{MOST_MEMORY / 1e6:,.0f} MB", met=large <= MOST_MEMORY)
    growth = large / small
    bench.rows.add(
        "the same over a quarter of the area", f"{growth:.2f} ({small / 1e6:,.0f} MB)", bar=f"{MOST_GROWTH}", met=growth <= MOST_GROWTH
    )


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


async def several(bench: Bench) -> None:
    """Slides one after the other and two at a time, as a bridge with so many places asks for them."""
    async with open_slide(bench.storage, bench.uri, _LIMITS, Staging(bench.storage, most_bytes=0)) as reader:
        edge = max(reader.facts.width, reader.facts.height)
    write_large_slide(bench.folder / BUCKET / "half.svs", edge=edge * 5 // 7)
    await analysed(bench, he_baseline.NAME, 256)  # warm
    for kind, slides in (("alike", ["large"] * 3), ("of two sizes", ["large", "half", "large", "half"])):
        for at_a_time in (1, 2):
            watched = Watched(inner=bench.models)
            seconds = await in_a_row(bench, watched, slides, at_a_time)
            idle = watched.idle()
            measured = f"{seconds:.1f} s; no call for {idle[0]:.2f} s at the longest, {sum(idle):.2f} s in all"
            bench.rows.add(f"{len(slides)} slides {kind}, {at_a_time} at a time", measured)


async def in_a_row(bench: Bench, watched: Watched, slides: Sequence[str], at_a_time: int) -> float:
    """Analyse slides in their order; returns the seconds that it took."""
    analyzer = SlideAnalyzer(inference=watched, storage=bench.storage, models=bench.folder / "models")

    async def analyse(names: Sequence[str]) -> None:
        for name in names:
            place = bench.folder / "several" / name
            request = AnalysisRequest(slide_uri=f"s3://{BUCKET}/{name}.svs", output_uri=str(place), tile_size=256)
            async for _ in analyzer.analyze(request, Caller()):
                pass

    begun = time.perf_counter()
    await per_second(analyse, [[name] for name in slides], at_a_time=at_a_time)
    return time.perf_counter() - begun


PARTS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "raw": raw_tiles,
    "decode": decoded_tiles,
    "he_baseline": whole_slides,
    "classifier": classified,
    "several": several,
}


def make_models(folder: Path) -> None:
    """The repository."""
    folder.mkdir()
    BUILDERS["he_baseline"](folder)
    place = build(folder, SMALL_RESNET)
    told = {"mpp": 0.5, "tile_size": 224, "classes": [f"class {number}" for number in range(1000)]}
    (place / "slide.json").write_text(json.dumps(told))


async def measure(folder: Path, server: RangeServer, parts: Sequence[str], edge: int) -> Rows:
    """All parts that were asked for."""
    repository = ModelRepository(folder / "models")
    models = ServingModels(repository, {"cpu": EngineSelector(discover(device="cpu"))}, metrics=CollectorRegistry())
    await models.load_all()
    storage = Storage(read_roots=(f"s3://{BUCKET}",), write_roots=(str(folder),), allow_http=True)
    bench = Bench(folder=folder, server=server, storage=storage, models=models, rows=Rows())
    for part in parts:
        if part in PARTS:
            await PARTS[part](bench)
    await models.close(grace_seconds=5.0)
    if "memory" in parts:
        await asyncio.to_thread(memory, bench, edge)
    return bench.rows


def main() -> int:
    """Measure; with --check the exit status tells whether all bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--parts", default=",".join((*PARTS, "memory")))
    parser.add_argument("--slide", type=Path, help="a slide of one's own; made by large_slides.py by default")
    parser.add_argument("--edge", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lamina-bench-slides-") as name:
        folder = Path(name)
        (folder / BUCKET).mkdir()
        place = folder / BUCKET / "large.svs"
        if given.slide:
            place.symlink_to(given.slide.resolve())
        else:
            write_large_slide(place, edge=given.edge)
        make_models(folder / "models")
        with range_server(folder) as server:
            os.environ.update(server.s3_environment)
            rows = asyncio.run(measure(folder, server, given.parts.split(","), given.edge))
    told = Table("what", "measured", "bar", "", title=f"Slides; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for row in rows.told:
        told.add_row(*row)
    Console(width=140).print(told)
    return int(given.check and not rows.met)


if __name__ == "__main__":
    sys.exit(main())
