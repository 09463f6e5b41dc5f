"""What the benchmarks of slides share: the table, the slide in the object store, and how work is timed."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.support.shaped_models import CLASSES, SMALL_RESNET, build
from inference_server.engine.selection.selector import EngineSelector
from inference_server.models.builders import BUILDERS
from inference_server.scheduler.port import Caller, Inference
from inference_server.scheduler.registry import ServingModels
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.analyses import Analyses
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.findings import AnalysisPlan
from inference_server.tasks.slides.manifest import BUILT_IN
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.survey import Slide, outline, scan_cells, survey
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Progress, SlideLimits
from tests.support.slides.range_server import RangeServer

BUCKET = "slides"
LIMITS = SlideLimits()
ROUNDS = 5
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
    selector: EngineSelector
    rows: Rows

    @property
    def analyses(self) -> Analyses:
        """Of the repository."""
        return Analyses(inference=self.models, models=self.folder / "models")

    @property
    def uri(self) -> str:
        """The slide in the object store."""
        return f"s3://{BUCKET}/large.svs"

    @property
    def cores(self) -> set[int]:
        """Those that all of it may use."""
        return os.sched_getaffinity(0)

    @property
    def path(self) -> Path:
        """The slide on disk."""
        return (self.folder / BUCKET / "large.svs").resolve()

    def analyzer(self, inference: Inference | None = None) -> SlideAnalyzer:
        """Of slides in the object store."""
        return SlideAnalyzer(inference=inference or self.models, storage=self.storage, models=self.folder / "models")

    @asynccontextmanager
    async def slide(self, plan: AnalysisPlan) -> AsyncIterator[Slide]:
        """Surveyed."""
        async with open_slide(self.storage, self.uri, LIMITS, Staging(self.storage, most_bytes=0)) as reader:
            outlined = outline(reader, AnalysisRequest(slide_uri=self.uri), plan, LIMITS)
            yield await survey(outlined, plan, await scan_cells(outlined, plan), call_share=1.0)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast something went."""

    tiles: int
    seconds: float
    # Processor time of this process.
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        """Tiles a second."""
        return self.tiles / self.seconds

    @property
    def cpu_micros(self) -> float:
        """Processor time of a tile, in µs: told beside the rate, since other work on the machine disturbs it less."""
        return self.cpu_seconds / self.tiles * 1e6


def mean_rate(rates: Sequence[Rate]) -> Rate:
    """Of several together."""
    return Rate(
        tiles=sum(rate.tiles for rate in rates),
        seconds=sum(rate.seconds for rate in rates),
        cpu_seconds=sum(rate.cpu_seconds for rate in rates),
    )


async def timed(work: Callable[[Sequence[T]], Awaitable[object]], batches: Iterable[Sequence[T]], *, at_a_time: int) -> Rate:
    """Batches that are worked on at the same time."""
    waiting, done = iter(batches), 0

    async def one() -> None:
        nonlocal done
        for batch in waiting:
            await work(batch)
            done += len(batch)

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(at_a_time)))
    return Rate(tiles=done, seconds=time.perf_counter() - begun, cpu_seconds=time.process_time() - cpu)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """One analysis from end to end."""

    total: Rate
    # Seconds by stage.
    stages: dict[str, float]
    # Seconds of cores in which nothing ran, and in which another process did, the store's server included.
    idle_seconds: float
    other_seconds: float

    @property
    def while_tiles(self) -> float:
        """Tiles a second while tiles are analysed."""
        return self.total.tiles / self.stages["tiles"]

    @property
    def told_stages(self) -> str:
        """Seconds by stage, to be read."""
        return ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.stages.items() if name)


async def analysed(bench: Bench, analysis: str, tile_size: int) -> Whole:
    """Run it."""
    request = AnalysisRequest(slide_uri=bench.uri, output_uri=str(bench.folder / "out"), analysis=analysis, tile_size=tile_size)
    stages: dict[str, float] = {}
    machine = _machine_seconds()
    stage, begun, cpu = "", time.perf_counter(), time.process_time()
    since, tiles = begun, 0
    async for event in bench.analyzer().analyze(request, Caller()):
        now = time.perf_counter()
        if isinstance(event, Progress) and event.stage != stage:
            stages[stage] = stages.get(stage, 0.0) + now - since
            stage, since = event.stage, now
        if isinstance(event, AnalysisResult):
            tiles = event.tiles_analyzed
    ended, own = time.perf_counter(), time.process_time() - cpu
    stages[stage] = stages.get(stage, 0.0) + ended - since
    busy, idle = (after - before for after, before in zip(_machine_seconds(), machine, strict=True))
    rate = Rate(tiles=tiles, seconds=ended - begun, cpu_seconds=own)
    return Whole(total=rate, stages=stages, idle_seconds=idle, other_seconds=max(busy - own, 0.0))


def _machine_seconds() -> tuple[float, float]:
    """Seconds in which the machine's cores worked, or were kept from it by another machine, and in which they had nothing to do."""
    user, nice, system, idle, waiting, *others = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + sum(others)) / ticks, (idle + waiting) / ticks


def make_models(folder: Path) -> None:
    """The repository."""
    folder.mkdir()
    BUILDERS[BUILT_IN](folder)
    place = build(folder, SMALL_RESNET)
    told = {"mpp": 0.5, "tile_size": 224, "classes": [f"class {number}" for number in range(CLASSES[SMALL_RESNET])]}
    (place / "slide.json").write_text(json.dumps(told))
