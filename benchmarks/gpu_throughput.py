"""How much of a GPU engine's own throughput is served by the scheduler?

For each built-in model, and a ResNet-50-shaped and a ViT-L-shaped classifier of random weights: rows a second of loops over the engine
with its best batch, one thread for each instance that serves, and of many callers of one row each through the scheduler, in one
process and one run. The ratio is the figure; beside it the callers' latency and the share of the time in which the GPU computed.
TensorRT's engines are built first, as `inference-server models compile` does. Needs a GPU and the extra `gpu`; without them it says so
and exits 0.

Run: python benchmarks/gpu_throughput.py [--check] [--seconds 5] [--models NAME …] [--engine-cache FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from benchmarks.support.shaped_models import RESNET, VIT
from benchmarks.support.shaped_models import build as build_shaped
from inference_server.compilation import Wanted, compile_models
from inference_server.engine import devices
from inference_server.engine.gpu_monitor import GpuMonitor
from inference_server.engine.port import Engine
from inference_server.engine.selection.measurements import MeasurementCache
from inference_server.engine.selection.sample import representative
from inference_server.engine.selection.selector import EngineSelector
from inference_server.errors import ConfigurationError, InferenceError
from inference_server.model_serving import runtimes, serving_models
from inference_server.models.builders import BUILDERS
from inference_server.models.repository import ModelRepository
from inference_server.scheduler.loading.loader import ModelLoader
from inference_server.scheduler.port import InferenceRequest, ModelFacts
from inference_server.scheduler.registry import ServingModels
from inference_server.settings import Settings

DEVICE = "cuda:0"
LEAST_SHARE = 0.9
# Callers for each row of the largest batches of all instances: so that the next batches wait while these run.
CALLERS_A_ROW = 2
SHAPES = {"ppocrv6_small_det": (3, 640, 640), "ppocrv6_small_rec": (3, 48, 320), "he_baseline": (256, 256, 3)}
SHAPED: dict[str, Callable[[Path], Path]] = {name: partial(build_shaped, name=name) for name in (RESNET, VIT)}


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of one model."""

    name: str
    engine: str
    # Rows a second.
    raw: float
    served: float
    # Seconds of the callers.
    median: float
    slowest: float
    # Share of the time in which the GPU computed.
    busy: float


def main() -> int:
    """Print the table; 1 when `--check` was given and a model is served below the bar or not at all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--models", nargs="*", default=[*BUILDERS, *SHAPED], help="some of the models only")
    parser.add_argument("--engine-cache", type=Path, help="keep built engines here; by default they are built anew")
    options = parser.parse_args()
    console = Console(width=140)
    if not devices.gpus():
        console.print("not measured: there is no GPU on this machine")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load(
            models=Path(folder, "models"),
            engine_cache=options.engine_cache or Path(folder, "engines"),
            device=DEVICE,
            build_engines="none",  # what could not be built must not be tried again beside what is measured
        )
        try:
            missing = prepare(settings, options.models, console)
            figures = asyncio.run(measure(settings, options.models, options.seconds, console))
        except ConfigurationError as error:
            console.print(f"not measured: {error}")
            return 0
    console.print(table(figures))
    missed = missing or len(figures) < len(options.models) or any(each.served < LEAST_SHARE * each.raw for each in figures)
    return int(options.check and missed)


def prepare(settings: Settings, names: list[str], console: Console) -> bool:
    """Make the models and build their engines; whether one could not be built, which is told."""
    settings.models.mkdir(parents=True, exist_ok=True)
    for name, build in {**BUILDERS, **SHAPED}.items():
        if name in names:
            build(settings.models)
    failed = False
    for each in compile_models(settings, Wanted(), lambda engine, state: None):
        console.print(f"{each.model} {each.engine}: {each.state.state} in {each.seconds:.0f} s {each.state.reason}")
        failed = failed or each.state.state == "failed"
    return failed


async def measure(settings: Settings, names: list[str], seconds: float, console: Console) -> list[Figures]:
    """The figures of each model that serves."""
    figures = []
    serving = serving_models(settings, CollectorRegistry())
    for name in names:
        try:
            raw = await asyncio.to_thread(raw_rate, settings, name, seconds)
            await serving.load(name)
            figures.append(await measure_model(serving, name, raw, seconds))
            await serving.unload(name)
        except InferenceError as error:
            console.print(f"{name} is not measured: {error}")
    await serving.close(grace_seconds=5)
    return figures


async def measure_model(serving: ServingModels, name: str, raw: float, seconds: float) -> Figures:
    """A model that serves; `raw` is what its engines do alone."""
    facts = serving.facts(name)
    instances = sum(max(1, group.count) for group in serving.config(name).instance_group)
    monitor = _Busy()
    monitor.start()
    served, latencies = await _served(serving, facts, seconds, callers=CALLERS_A_ROW * instances * max(1, facts.max_batch_size))
    latencies.sort()
    return Figures(
        name=name,
        engine=facts.engine,
        raw=raw,
        served=served,
        median=statistics.median(latencies),
        slowest=latencies[int(len(latencies) * 0.99)],
        busy=monitor.stop(),
    )


def raw_rate(settings: Settings, name: str, seconds: float) -> float:
    """Rows a second of engines as they would serve, one thread each, before they do."""
    cache = MeasurementCache(settings.engine_cache / "measurements")
    loader = ModelLoader({DEVICE: EngineSelector(runtimes(settings, DEVICE), cache=cache)})
    folder = ModelRepository(settings.models).read(name)
    loaded = loader.load(folder, folder.versions[-1])
    try:
        return _rate([placed.engine for placed in loaded.placed], loaded.facts, seconds)
    finally:
        loaded.memory.release()


def _rate(engines: Sequence[Engine], facts: ModelFacts, seconds: float) -> float:
    batch = max(1, facts.max_batch_size)
    inputs = representative(facts.inputs, rows=batch, shapes=_shapes(facts))
    runs = [0] * len(engines)

    def loop(number: int) -> None:
        while time.perf_counter() - begun < seconds:
            engines[number].run(inputs)
            runs[number] += 1

    for engine in engines:
        engine.run(inputs)
    begun = time.perf_counter()
    threads = [threading.Thread(target=loop, args=(number,)) for number in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(runs) * batch / (time.perf_counter() - begun)


async def _served(serving: ServingModels, facts: ModelFacts, seconds: float, *, callers: int) -> tuple[float, list[float]]:
    inputs = representative(facts.inputs, rows=1 if facts.max_batch_size else 0, shapes=_shapes(facts))
    latencies: list[float] = []
    begun = time.perf_counter()

    async def caller() -> None:
        while (asked := time.perf_counter()) - begun < seconds:
            await serving.infer(InferenceRequest(model=facts.name, inputs=inputs))
            latencies.append(time.perf_counter() - asked)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(latencies) / (time.perf_counter() - begun), latencies


def _shapes(facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    return {spec.name: SHAPES[facts.name] for spec in facts.inputs if facts.name in SHAPES and -1 in spec.shape[1:]}


class _Busy(threading.Thread):
    """Looks at the GPU now and then."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._monitor = GpuMonitor((DEVICE,))
        self._looks: list[float] = []
        self._ended = threading.Event()

    def run(self) -> None:
        """Look until `stop`."""
        while not self._ended.wait(0.2):
            self._looks.extend(reading.utilisation for reading in self._monitor.readings())

    def stop(self) -> float:
        """The mean of what was seen; not a number when nothing was."""
        self._ended.set()
        self.join()
        return statistics.mean(self._looks) if self._looks else float("nan")


def table(figures: list[Figures]) -> Table:
    """The figures as they are printed."""
    columns = ("model", "engine", "raw rows/s", "served rows/s", "share", "median ms", "99 % ms", "GPU use")
    made = Table(*columns, title=devices.gpus()[0].name)
    for each in figures:
        made.add_row(
            each.name,
            each.engine,
            f"{each.raw:.0f}",
            f"{each.served:.0f}",
            f"{each.served / each.raw:.2f}",
            f"{each.median * 1000:.1f}",
            f"{each.slowest * 1000:.1f}",
            f"{each.busy:.0%}",
        )
    return made


if __name__ == "__main__":
    sys.exit(main())
