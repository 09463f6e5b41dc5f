"""How fast a slide is analysed, over its halves alone: reading without a model, and the model's engine without reading.

A machine's clock and its neighbours change within seconds, by more than a bar's margin. So analyses and their halves take turns, each
analysis is held against what was measured right before and right after it, and the median of these ratios counts.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchmarks.support.shaped_models import SMALL_RESNET
from benchmarks.support.slides.measures import BUCKET, LIMITS, Bench, Rate, Whole, analysed, mean_rate, timed
from inference_server.allocator import KEPT_FOR_SLIDES, Reuse
from inference_server.engine.port import Engine, Tensors
from inference_server.engine.portions import in_portions
from inference_server.models.values import RUN_BYTES
from inference_server.scheduler.port import Caller, InferenceRequest
from inference_server.tasks.slides.findings import AnalysisPlan, TileAnalysis
from inference_server.tasks.slides.manifest import BUILT_IN
from inference_server.tasks.slides.survey import Slide, read_batch
from tests.support.slides.needed_bytes import needed_bytes

ROUNDS = 3
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
    def engine_number(self) -> int:
        """Of the engine that is faster: of all measurements together, since the faster of two by chance is faster than both."""
        return max(range(len(self.engines)), key=lambda number: self.engines[number].per_second)

    @property
    def engine(self) -> Rate:
        """Of the engines whichever is faster."""
        return self.engines[self.engine_number]

    @property
    def slower(self) -> float:
        """Tiles a second of the slower of reading and engine."""
        return min(self.reading.per_second, self.engine.per_second)

    @property
    def bound(self) -> float:
        """Tiles a second that the same cores allow both together, where each alone has all of them."""
        return 1 / (1 / self.reading.per_second + 1 / self.engine.per_second)


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Analyses, and their halves alone before the first, between them and after the last."""

    wholes: Sequence[Whole]
    halves: Sequence[Halves]

    @staticmethod
    async def of(count: int, whole: Callable[[], Awaitable[Whole]], halves: Callable[[], Awaitable[Halves]]) -> Rounds:
        """Measure them in turns. Of the engines the one that was the faster of all measurements together is kept."""
        wholes, apart = list[Whole](), [await halves()]
        for _ in range(count):
            wholes.append(await whole())
            apart.append(await halves())
        engine = Halves.mean(apart).engine_number
        return Rounds(wholes=wholes, halves=[replace(each, engines=(each.engines[engine],)) for each in apart])

    def over(self, limit: Callable[[Halves], float]) -> list[float]:
        """Tiles a second of each analysis over those of a limit by the halves right before and after it."""
        return [whole.total.per_second / limit(Halves.mean(pair)) for whole, pair in zip(self.wholes, pairwise(self.halves), strict=True)]

    @property
    def total(self) -> Rate:
        """Of the analyses together."""
        return mean_rate([whole.total for whole in self.wholes])

    @property
    def while_tiles(self) -> float:
        """Tiles a second of the analyses while tiles are analysed."""
        return self.total.tiles / sum(whole.stages["tiles"] for whole in self.wholes)

    @property
    def told_cores(self) -> str:
        """What the cores did that was not the analysis."""
        idle, others = (
            sum(getattr(whole, name) for whole in self.wholes) / self.total.seconds for name in ("idle_seconds", "other_seconds")
        )
        return f"{idle:.0%}; {others:.0%} of a core"


def _told(ratios: Sequence[float]) -> str:
    """The median of some ratios, the least and the most of them."""
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}"


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
    """Measure them on the first batches, each with all the cores that there are, and with the memory settings of an analysis."""
    async with Reuse().reused(KEPT_FOR_SLIDES):
        return await _apart(bench, slide, analysis, most)


async def _apart(bench: Bench, slide: Slide, analysis: TileAnalysis, most: int) -> Halves:
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
    """`he_baseline` from end to end, in turns with its halves on a core each: all are warmed up, and the first slide is told beside."""
    prepared = await bench.analyses.prepare(BUILT_IN, 256)
    plan = prepared.plan
    first = await analysed(bench, BUILT_IN, 256)
    async with bench.slide(plan) as slide:
        analysis = await prepared.begin(slide)

        async def by_core() -> Halves:
            with _on_one_core(bench.cores):
                return await apart(bench, slide, analysis, 60)

        sent = bench.server.sent().body_bytes
        await analysed(bench, BUILT_IN, 256)
        sent = bench.server.sent().body_bytes - sent
        before = await apart(bench, slide, analysis, 200)
        rounds = await Rounds.of(ROUNDS, lambda: analysed(bench, BUILT_IN, 256), by_core)
        halves = Halves.mean([before, await apart(bench, slide, analysis, 200)])
        needed = needed_bytes(bench.folder / BUCKET / "large.svs", slide, plan)
    _tell_halves(bench, rounds, halves)
    rate = rounds.total.per_second
    told = f"{rate:,.0f} tiles/s, {rounds.total.cpu_micros:,.0f} µs of processor time a tile"
    bench.rows.add("he_baseline: end to end", told, bar=f"{LEAST_TILES:.0f} tiles/s", met=rate >= LEAST_TILES)
    bench.rows.add("he_baseline: seconds by stage", rounds.wholes[-1].told_stages)
    bench.rows.add("he_baseline: the first slide of a process", f"{first.total.per_second:,.0f} tiles/s; {first.told_stages}")
    share = sent / needed
    bench.rows.add("bytes read over those of the tiles used", f"{share:.3f}", bar=f"{MOST_READ}", met=share <= MOST_READ)


def _tell_halves(bench: Bench, rounds: Rounds, halves: Halves) -> None:
    """Analyses over their halves, which had a core each, or all of them."""
    for name, rate in (("reading", halves.reading), ("engine", halves.engine), ("model through the scheduler", halves.model)):
        bench.rows.add(f"he_baseline: {name} alone", f"{rate.per_second:,.0f} tiles/s, {rate.cpu_micros:,.0f} µs of processor time a tile")
    by_core = Halves.mean(rounds.halves)
    told = f"{by_core.reading.per_second:,.0f}; {by_core.engine.per_second:,.0f} tiles/s"
    bench.rows.add("he_baseline: reading; engine alone, on one core", told)
    ratios = rounds.over(lambda each: each.slower)
    bench.rows.add(
        "he_baseline: end to end over the slower half, a core for each",
        f"{_told(ratios)} in {len(ratios)} rounds)",
        bar=f"{LEAST_OVER_SLOWER}",
        met=median(ratios) >= LEAST_OVER_SLOWER,
    )
    bench.rows.add("  cores idle meanwhile; with other programs, the store's server among them", rounds.told_cores)
    rate = rounds.total.per_second
    told = f"{rate / halves.slower:.2f}; {halves.bound / halves.slower:.2f} ({halves.bound:,.0f} tiles/s)"
    bench.rows.add("  over the slower half that has both cores; most that is possible", told)
    bench.rows.add(
        "  end to end over that; while tiles are analysed", f"{rate / halves.bound:.2f}; {rounds.while_tiles / halves.bound:.2f}"
    )


async def classified(bench: Bench) -> None:
    """A classifier from end to end, in turns with its engine alone."""
    prepared = await bench.analyses.prepare(SMALL_RESNET)
    async with bench.slide(prepared.plan) as slide:
        analysis = await prepared.begin(slide)
        rounds = await Rounds.of(ROUNDS, lambda: analysed(bench, SMALL_RESNET, 0), lambda: apart(bench, slide, analysis, 40))
    halves = Halves.mean(rounds.halves)
    alone, whole, ratios = halves.engine.per_second, rounds.total, rounds.over(lambda each: each.engine.per_second)
    measured = f"{_told(ratios)}; {whole.per_second:,.0f} of {alone:,.0f} tiles/s)"
    met = median(ratios) >= LEAST_CLASSIFIED
    bench.rows.add("ResNet-18's shape: end to end over its engine", measured, bar=f"{LEAST_CLASSIFIED}", met=met)
    bench.rows.add("  while tiles are analysed; most that is possible", f"{rounds.while_tiles / alone:.2f}; {halves.bound / alone:.2f}")
    micros = [rate.cpu_micros for rate in (halves.reading, halves.engine, halves.model, whole)]
    told = "; ".join(f"{each:,.0f}" for each in micros)
    bench.rows.add("  µs of processor time a tile: reading; engine; through the scheduler; all", told)
    bench.rows.add("  cores idle meanwhile; with other programs, the store's server among them", rounds.told_cores)
    bench.rows.add("  seconds by stage", rounds.wholes[-1].told_stages)
