"""How fast a slide is analysed, over its halves alone: reading without a model, and the model's engine without reading."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.shaped_models import SMALL_RESNET
from benchmarks.support.slides.measures import BUCKET, LIMITS, Bench, Rate, Whole, analysed, mean_rate, timed
from inference_server.engine.port import Engine, Tensors
from inference_server.engine.portions import in_portions
from inference_server.models.values import RUN_BYTES
from inference_server.scheduler.port import Caller, InferenceRequest
from inference_server.tasks.slides.findings import AnalysisPlan, TileAnalysis
from inference_server.tasks.slides.manifest import BUILT_IN
from inference_server.tasks.slides.survey import Slide, read_batch
from tests.support.needed_bytes import needed_bytes

LEAST_OVER_SLOWER, LEAST_TILES, LEAST_CLASSIFIED, MOST_READ = 0.8, 500.0, 0.9, 1.1


@dataclass(frozen=True, kw_only=True)
class Halves:
    """What an analysis is made of, each alone."""

    # Tiles read, decoded and put together.
    reading: Rate
    # The engines that serve, called by a loop with what the first batch of tiles made: one instance of all cores, and one for each core.
    engines: tuple[Rate, ...]
    # The same through the scheduler, inputs included.
    model: Rate

    @staticmethod
    def mean(halves: Sequence[Halves]) -> Halves:
        """Of those before and after."""
        return Halves(
            reading=mean_rate([each.reading for each in halves]),
            engines=tuple(mean_rate(rates) for rates in zip(*(each.engines for each in halves), strict=True)),
            model=mean_rate([each.model for each in halves]),
        )

    @property
    def engine(self) -> Rate:
        """Of the engines whichever is faster: of all measurements together, since the faster of two by chance is faster than both."""
        return max(self.engines, key=lambda rate: rate.per_second)

    @property
    def slower(self) -> float:
        """Tiles a second of the slower of reading and engine."""
        return min(self.reading.per_second, self.engine.per_second)

    @property
    def bound(self) -> float:
        """Tiles a second that the same cores allow both together, where each alone has all of them."""
        return 1 / (1 / self.reading.per_second + 1 / self.engine.per_second)


@contextmanager
def _on_one_core(cores: set[int]) -> Iterator[None]:
    """All threads of this process, and those that they start."""

    def keep_to(chosen: set[int]) -> None:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), chosen)

    keep_to({min(cores)})
    try:
        yield
    finally:
        keep_to(cores)


async def apart(bench: Bench, slide: Slide, analysis: TileAnalysis, most: int) -> Halves:
    """Measure them on the first batches, each with all the cores that there are."""
    plan, batches = analysis.plan, slide.batches[:most]
    pixels = await read_batch(slide, plan, batches[0])
    version = bench.models.facts(plan.model).version

    async def infer(batch: Sequence[object]) -> None:
        inputs = analysis.inputs(pixels[: len(batch)])
        await bench.models.infer(InferenceRequest(model=plan.model, version=version, inputs=inputs, outputs=plan.outputs, caller=Caller()))

    calls, cores = LIMITS.calls_in_flight, len(bench.cores)
    engines = [
        await asyncio.to_thread(_engine_alone, bench, plan, analysis.inputs(pixels), len(batches), instances) for instances in {1, cores}
    ]
    return Halves(
        reading=await timed(lambda batch: read_batch(slide, plan, batch), batches, at_a_time=calls),
        engines=tuple(engines),
        model=await timed(infer, batches, at_a_time=calls),
    )


def _engine_alone(bench: Bench, plan: AnalysisPlan, inputs: Tensors, batches: int, instances: int) -> Rate:
    """Instances of the engine that serves, each in a thread, on one batch again and again."""
    file = bench.folder / "models" / plan.model / "1" / "model.onnx"
    facts = bench.models.facts(plan.model)
    each = max(len(bench.cores) // instances, 1)
    run_bytes = int(facts.parameters.get(RUN_BYTES, "0")) * each
    engines = [in_portions(bench.selector.load(file, facts.engine, threads=each), run_bytes) for _ in range(instances)]
    rows = len(next(iter(inputs.values())))

    def run(engine: Engine) -> None:
        for _ in range(batches // instances):
            engine.run(inputs, plan.outputs)

    with ThreadPoolExecutor(instances) as threads:
        list(threads.map(lambda engine: engine.run(inputs, plan.outputs), engines))  # warm
        begun, cpu = time.perf_counter(), time.process_time()
        list(threads.map(run, engines))
    tiles = rows * (batches // instances) * instances
    return Rate(tiles=tiles, seconds=time.perf_counter() - begun, cpu_seconds=time.process_time() - cpu)


async def whole_slides(bench: Bench) -> None:
    """`he_baseline` from end to end, between two measurements of its halves: all are warmed up, and the first slide is told beside."""
    prepared = await bench.analyses.prepare(BUILT_IN, 256)
    plan = prepared.plan
    first = await analysed(bench, BUILT_IN, 256)
    async with bench.slide(plan) as slide:
        analysis = await prepared.begin(slide)
        before, before_by_core = await _apart_twice(bench, slide, analysis)
        sent = bench.server.sent().body_bytes
        whole = await analysed(bench, BUILT_IN, 256)
        sent = bench.server.sent().body_bytes - sent
        after, after_by_core = await _apart_twice(bench, slide, analysis)
        needed = needed_bytes(bench.folder / BUCKET / "large.svs", slide, plan)
    _tell_halves(bench, whole, Halves.mean([before, after]), Halves.mean([before_by_core, after_by_core]))
    rate = whole.total.per_second
    told = f"{rate:,.0f} tiles/s, {whole.total.cpu_micros:,.0f} µs of processor time a tile"
    bench.rows.add("he_baseline: end to end", told, bar=f"{LEAST_TILES:.0f} tiles/s", met=rate >= LEAST_TILES)
    bench.rows.add("he_baseline: seconds by stage", whole.told_stages)
    bench.rows.add("he_baseline: the first slide of a process", f"{first.total.per_second:,.0f} tiles/s; {first.told_stages}")
    share = sent / needed
    bench.rows.add("bytes read over those of the tiles used", f"{share:.3f}", bar=f"{MOST_READ}", met=share <= MOST_READ)


async def _apart_twice(bench: Bench, slide: Slide, analysis: TileAnalysis) -> tuple[Halves, Halves]:
    """Each half with all cores, then with one."""
    with_all = await apart(bench, slide, analysis, 200)
    with _on_one_core(bench.cores):
        return with_all, await apart(bench, slide, analysis, 100)


def _tell_halves(bench: Bench, whole: Whole, halves: Halves, by_core: Halves) -> None:
    """An analysis over its halves, which had all cores, or one each."""
    for name, rate in (("reading", halves.reading), ("engine", halves.engine), ("model through the scheduler", halves.model)):
        bench.rows.add(f"he_baseline: {name} alone", f"{rate.per_second:,.0f} tiles/s, {rate.cpu_micros:,.0f} µs of processor time a tile")
    told = f"{by_core.reading.per_second:,.0f}; {by_core.engine.per_second:,.0f} tiles/s"
    bench.rows.add("he_baseline: reading; engine alone, on one core", told)
    rate = whole.total.per_second
    over = rate / by_core.slower
    told = f"{over:.2f} ({whole.total.tiles:,} tiles in {whole.total.seconds:.1f} s)"
    bench.rows.add(
        "he_baseline: end to end over the slower half, a core for each", told, bar=f"{LEAST_OVER_SLOWER}", met=over >= LEAST_OVER_SLOWER
    )
    told = f"{rate / halves.slower:.2f}; {halves.bound / halves.slower:.2f} ({halves.bound:,.0f} tiles/s)"
    bench.rows.add("  over the slower half that has both cores; most that is possible", told)
    bench.rows.add("  end to end over that; while tiles are analysed", f"{rate / halves.bound:.2f}; {whole.while_tiles / halves.bound:.2f}")


async def classified(bench: Bench) -> None:
    """A classifier from end to end, over its engine alone."""
    prepared = await bench.analyses.prepare(SMALL_RESNET)
    async with bench.slide(prepared.plan) as slide:
        analysis = await prepared.begin(slide)
        before = await apart(bench, slide, analysis, 40)
        whole = await analysed(bench, SMALL_RESNET, 0)
        halves = Halves.mean([before, await apart(bench, slide, analysis, 40)])
    alone = halves.engine.per_second
    share = whole.total.per_second / alone
    measured = f"{share:.2f} ({whole.total.per_second:,.0f} of {alone:,.0f} tiles/s)"
    bench.rows.add("ResNet-18's shape: end to end over its engine", measured, bar=f"{LEAST_CLASSIFIED}", met=share >= LEAST_CLASSIFIED)
    bench.rows.add("  while tiles are analysed; most that is possible", f"{whole.while_tiles / alone:.2f}; {halves.bound / alone:.2f}")
    micros = [rate.cpu_micros for rate in (halves.reading, halves.engine, halves.model, whole.total)]
    told = "; ".join(f"{each:,.0f}" for each in micros)
    bench.rows.add("  µs of processor time a tile: reading; engine; through the scheduler; all", told)
    bench.rows.add("  seconds by stage", whole.told_stages)
