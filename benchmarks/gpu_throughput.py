"""How much of a GPU engine's own throughput is served by the scheduler?

For each built-in model: rows a second of a loop over the engine with its best batch, and of 64 callers of one row each through the
scheduler, in one process and one run. The ratio is the figure. Needs a GPU and ONNX Runtime with CUDA; without them it says so and exits 0.

Run: python benchmarks/gpu_throughput.py [--check] [--seconds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from inference_server.engine import devices
from inference_server.engine.runtimes import Runtimes, discover
from inference_server.engine.sample import representative
from inference_server.engine.selection import EngineSelector
from inference_server.errors import ConfigurationError
from inference_server.models.builders import BUILDERS
from inference_server.models.repository import ModelRepository
from inference_server.scheduler.port import InferenceRequest, ModelFacts
from inference_server.scheduler.registry import ServingModels

CALLERS = 64
LEAST_SHARE = 0.9
SHAPES = {"ppocrv6_small_det": (3, 640, 640), "ppocrv6_small_rec": (3, 48, 320), "he_baseline": (256, 256, 3)}


def main() -> int:
    """Print the table; 1 when `--check` was given and a model is served below the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    options = parser.parse_args()
    console = Console(width=110)
    try:
        runtimes = discover(device="cuda:0")
    except ConfigurationError as error:
        console.print(f"not measured: {error}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        for build in BUILDERS.values():
            build(models)
        rows = asyncio.run(measure(models, runtimes, options.seconds))
    table = Table("model", "engine", "raw rows/s", "served rows/s", "share", title=devices.gpus()[0].name)
    for name, engine, raw, served in rows:
        table.add_row(name, engine, f"{raw:.0f}", f"{served:.0f}", f"{served / raw:.2f}")
    console.print(table)
    return int(options.check and any(served / raw < LEAST_SHARE for _, _, raw, served in rows))


async def measure(models: Path, runtimes: Runtimes, seconds: float) -> list[tuple[str, str, float, float]]:
    """Name, engine, raw and served rows per second of each model."""
    selector = EngineSelector(runtimes)
    serving = ServingModels(ModelRepository(models), {runtimes.device: selector}, metrics=CollectorRegistry())
    await serving.load_all()
    rows = []
    for name in BUILDERS:
        facts = serving.facts(name)
        raw = await asyncio.to_thread(_raw_rate, models, selector, facts, seconds)
        rows.append((name, facts.engine, raw, await _served_rate(serving, facts, seconds)))
    await serving.close(grace_seconds=5)
    return rows


def _raw_rate(models: Path, selector: EngineSelector, facts: ModelFacts, seconds: float) -> float:
    engine = selector.load(models / facts.name / facts.version / "model.onnx", facts.engine)
    batch = max(1, facts.max_batch_size)
    inputs = representative(facts.inputs, rows=batch, shapes=_shapes(facts))
    engine.run(inputs)
    runs, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        engine.run(inputs)
        runs += 1
    return runs * batch / (time.perf_counter() - begun)


async def _served_rate(serving: ServingModels, facts: ModelFacts, seconds: float) -> float:
    inputs = representative(facts.inputs, rows=1, shapes=_shapes(facts))
    served, begun = 0, time.perf_counter()

    async def caller() -> None:
        nonlocal served
        while time.perf_counter() - begun < seconds:
            await serving.infer(InferenceRequest(model=facts.name, inputs=inputs))
            served += 1

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return served / (time.perf_counter() - begun)


def _shapes(facts: ModelFacts) -> dict[str, tuple[int, ...]]:
    return {spec.name: SHAPES[facts.name] for spec in facts.inputs if facts.name in SHAPES}


if __name__ == "__main__":
    sys.exit(main())
