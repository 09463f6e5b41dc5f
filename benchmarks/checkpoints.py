"""What do checkpoints cost the analysis of a slide, how large are they, and what does a crash at 60 % cost with them?

- Processor time of an analysis with checkpoints over one without, measured in turns: each over those right before and after it, and the
  median of these, since a single one is off by a twentieth. Bar: 1.1.
- Tiles that are computed again after a crash, as a share of all. Bar: 0.05.
- The whole time of both runs over that of one without a crash, and the bytes of the parts by tile.

Run: python benchmarks/checkpoints.py [--check] [--rounds 10] [--size 6144]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import uvloop
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from inference_server.app import prepare_process
from inference_server.engine.runtimes import discover
from inference_server.engine.selection.selector import EngineSelector
from inference_server.models.builders import BUILDERS
from inference_server.models.repository import ModelRepository
from inference_server.scheduler.port import Caller
from inference_server.scheduler.registry import ServingModels
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Checkpoint
from inference_server.threads import keep_opencv_single
from scripts.demo_inputs import write_slide

MOST_COST = 1.1
MOST_AGAIN = 0.05
KILLED_AT = 0.6


@dataclass(kw_only=True)
class Run:
    """One run, whole or cut off."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    # Rows that the model was asked for.
    computed: int = 0
    parts: list[Checkpoint] = field(default_factory=list)
    result: AnalysisResult | None = None


async def run(models: ServingModels, analyzer: SlideAnalyzer, request: AnalysisRequest, *, until: float = 1.0) -> Run:
    """Analyse, and go away once so many tiles are saved."""
    done = Run()
    wall, cpu = time.perf_counter(), time.process_time()
    before = models.statistics("he_baseline")[0].inference_count
    stream = analyzer.analyze(request, Caller())
    async for event in stream:
        if isinstance(event, AnalysisResult):
            done.result = event
        if isinstance(event, Checkpoint):
            done.parts.append(event)
            if until < 1.0 and event.tiles_done >= until * event.tiles_total:
                break
    await stream.aclose()
    done.wall_seconds, done.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    done.computed = models.statistics("he_baseline")[0].inference_count - before
    return done


async def measure(folder: Path, rounds: int, size: int) -> bool:
    """Print the table; whether all bars are met."""
    slide = write_slide(folder / "slide.tiff", size=size)
    BUILDERS["he_baseline"](folder / "models")
    models = ServingModels(ModelRepository(folder / "models"), {"cpu": EngineSelector(discover(device="cpu"))}, metrics=CollectorRegistry())
    await models.load_all()
    storage = Storage(read_roots=(str(folder),), write_roots=(str(folder),))
    analyzer = SlideAnalyzer(inference=models, storage=storage, models=folder / "models")
    plain = AnalysisRequest(slide_uri=str(slide), output_uri=str(folder / "plain"), tile_size=256)
    saving = replace(plain, output_uri=str(folder / "saving"), checkpoints=True)
    await run(models, analyzer, plain)
    without, with_parts = [await run(models, analyzer, plain)], list[Run]()
    for _ in range(rounds):
        with_parts.append(await run(models, analyzer, saving))
        without.append(await run(models, analyzer, plain))
    cut = await run(models, analyzer, replace(saving, output_uri=str(folder / "cut")), until=KILLED_AT)
    rest = await run(models, analyzer, replace(saving, resume_uris=tuple(part.uri for part in cut.parts)))
    await models.close(grace_seconds=5.0)
    return report(without, with_parts, cut, rest)


def report(without: Sequence[Run], with_parts: Sequence[Run], cut: Run, rest: Run) -> bool:
    """Print what was measured. `without`, `with_parts`: in turns, the first and the last without."""
    saving = with_parts[0]
    assert saving.result is not None
    tiles = saving.result.tiles_analyzed
    beside = [fmean(each.cpu_seconds for each in pair) for pair in pairwise(without)]
    cost = median(each.cpu_seconds / seconds for each, seconds in zip(with_parts, beside, strict=True))
    again = (cut.computed + rest.computed - tiles) / tiles
    whole = median(each.wall_seconds for each in with_parts)
    size = sum(part.size_bytes for part in saving.parts)
    table = Table("What", "Measured", "Bar")
    table.add_row("processor time with checkpoints over without", f"{cost:.3f}", f"at most {MOST_COST}")
    table.add_row("tiles computed again after a crash at 60 %", f"{again:.2%} of {tiles:,}", f"at most {MOST_AGAIN:.0%}")
    table.add_row(
        "whole time of both runs over one undisturbed", f"{(cut.wall_seconds + rest.wall_seconds) / whole:.2f} of {whole:.1f} s", ""
    )
    table.add_row("parts", f"{len(saving.parts)}, {size / 1024:,.0f} KiB, {size / tiles:,.0f} bytes a tile", "")
    Console().print(table)
    return cost <= MOST_COST and again <= MOST_AGAIN


def main() -> int:
    """Measure; with --check the exit status tells whether all bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--size", type=int, default=6144)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        # As the server does.
        prepare_process()
        keep_opencv_single()
        met = uvloop.run(measure(Path(name), given.rounds, given.size))
    return 0 if met or not given.check else 1


if __name__ == "__main__":
    sys.exit(main())
