"""How fast a slide is analysed, over its halves alone: reading without a model, and the model's engine without reading."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.support.shaped_models import SMALL_RESNET
from benchmarks.support.slides.measures import BUCKET, LIMITS, Bench, Rate, analysed, mean_rate, timed
from inference_server.engine.port import Engine, Tensors
from inference_server.engine.portions import in_portions
from inference_server.models.values import RUN_BYTES
from inference_server.scheduler.port import Caller, InferenceRequest
from inference_server.tasks.slides.findings import AnalysisPlan, TileAnalysis
from inference_server.tasks.slides.kinds import he_baseline
from inference_server.tasks.slides.survey import Slide, read_batch
from tests.support.needed_bytes import needed_bytes

LEAST_OVER_SLOWER, LEAST_TILES, LEAST_CLASSIFIED, MOST_READ = 0.8, 500.0, 0.9, 1.1


@dataclass(frozen=True, kw_only=True)
class Halves:
    """What an analysis is made of, each alone on the same cores."""

    # Tiles read, decoded and put together.
    reading: Rate
    # The engines that serve, called by a loop with what the first batch of tiles made.
    engine: Rate
    # The same through the scheduler, inputs included.
    model: Rate

    @staticmethod
    def mean(halves: Sequence[Halves]) -> Halves:
        """Of those before and after."""
        return Halves(
            reading=mean_rate([each.reading for each in halves]),
            engine=mean_rate([each.engine for each in halves]),
            model=mean_rate([each.model for each in halves]),
        )

    @property
    def slower(self) -> float:
        """Tiles a second of the slower of reading and engine."""
        return min(self.reading.per_second, self.engine.per_second)

    @property
    def bound(self) -> float:
        """Tiles a second that the same cores allow both together, where each alone has all of them."""
        return 1 / (1 / self.reading.per_second + 1 / self.engine.per_second)


async def apart(bench: Bench, slide: Slide, analysis: TileAnalysis, most: int, *, instances: int) -> Halves:
    """Measure them on the first batches. `instances`: of the model."""
    plan, batches = analysis.plan, slide.batches[:most]
    pixels = await read_batch(slide, plan, batches[0])
    version = bench.models.facts(plan.model).version

    async def infer(batch: Sequence[object]) -> None:
        inputs = analysis.inputs(pixels[: len(batch)])
        await bench.models.infer(InferenceRequest(model=plan.model, version=version, inputs=inputs, outputs=plan.outputs, caller=Caller()))

    calls = LIMITS.calls_in_flight
    return Halves(
        reading=await timed(lambda batch: read_batch(slide, plan, batch), batches, at_a_time=calls),
        engine=await asyncio.to_thread(_engine_alone, bench, plan, analysis.inputs(pixels), len(batches), instances),
        model=await timed(infer, batches, at_a_time=calls),
    )


def _engine_alone(bench: Bench, plan: AnalysisPlan, inputs: Tensors, batches: int, instances: int) -> Rate:
    """Instances of the engine that serves, each in a thread, on one batch again and again."""
    file = bench.folder / "models" / plan.model / "1" / "model.onnx"
    facts = bench.models.facts(plan.model)
    run_bytes = int(facts.parameters.get(RUN_BYTES, "0"))
    engines = [
        in_portions(bench.selector.load(file, facts.engine, threads=len(bench.cores) // instances), run_bytes) for _ in range(instances)
    ]
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
    """`he_baseline` from end to end, between two measurements of its halves."""
    prepared = await bench.analyses.prepare(he_baseline.NAME, 256)
    plan, instances = prepared.plan, 2
    async with bench.slide(plan) as slide:
        analysis = await prepared.begin(slide)
        before = await apart(bench, slide, analysis, 200, instances=instances)
        sent = bench.server.sent().body_bytes
        whole = await analysed(bench, he_baseline.NAME, 256)
        sent = bench.server.sent().body_bytes - sent
        halves = Halves.mean([before, await apart(bench, slide, analysis, 200, instances=instances)])
        needed = needed_bytes(bench.folder / BUCKET / "large.svs", slide, plan)
    for name, rate in (("reading", halves.reading), ("engine", halves.engine), ("model through the scheduler", halves.model)):
        bench.rows.add(f"he_baseline: {name} alone", f"{rate.per_second:,.0f} tiles/s, {rate.cpu_micros:,.0f} µs of processor time a tile")
    rate = whole.total.per_second
    over = rate / halves.slower
    told = f"{over:.2f} ({whole.total.tiles:,} tiles in {whole.total.seconds:.1f} s)"
    bench.rows.add(
        "he_baseline: end to end, over the slower of reading and engine", told, bar=f"{LEAST_OVER_SLOWER}", met=over >= LEAST_OVER_SLOWER
    )
    bench.rows.add(
        "  most that is possible where both want the same cores", f"{halves.bound / halves.slower:.2f} ({halves.bound:,.0f} tiles/s)"
    )
    bench.rows.add("  end to end over that; while tiles are analysed", f"{rate / halves.bound:.2f}; {whole.while_tiles / halves.bound:.2f}")
    told = f"{rate:,.0f} tiles/s, {whole.total.cpu_micros:,.0f} µs of processor time a tile"
    bench.rows.add("he_baseline: end to end", told, bar=f"{LEAST_TILES:.0f} tiles/s", met=rate >= LEAST_TILES)
    bench.rows.add("he_baseline: seconds by stage", whole.told_stages)
    share = sent / needed
    bench.rows.add("bytes read over those of the tiles used", f"{share:.3f}", bar=f"{MOST_READ}", met=share <= MOST_READ)


async def classified(bench: Bench) -> None:
    """A classifier from end to end, over its engine alone."""
    prepared = await bench.analyses.prepare(SMALL_RESNET)
    async with bench.slide(prepared.plan) as slide:
        analysis = await prepared.begin(slide)
        before = await apart(bench, slide, analysis, 40, instances=1)
        whole = await analysed(bench, SMALL_RESNET, 0)
        halves = Halves.mean([before, await apart(bench, slide, analysis, 40, instances=1)])
    alone = halves.engine.per_second
    share = whole.total.per_second / alone
    measured = f"{share:.2f} ({whole.total.per_second:,.0f} of {alone:,.0f} tiles/s)"
    bench.rows.add("ResNet-18's shape: end to end over its engine", measured, bar=f"{LEAST_CLASSIFIED}", met=share >= LEAST_CLASSIFIED)
    bench.rows.add("  while tiles are analysed; most that is possible", f"{whole.while_tiles / alone:.2f}; {halves.bound / alone:.2f}")
    bench.rows.add("  seconds by stage", whole.told_stages)
