"""How fast is a slide of 100,000 × 100,000 px read from an object store and analysed, and in how much memory?

- Raw tiles from a local S3, a server that keeps up. Bar: 10,000/s. The same from a web server, without a bar.
- Tiles read from disk and decoded, as many batches at a time as in an analysis, over simplejpeg alone on the same bytes, in turns.
  Bar: 0.9.
- `he_baseline` on tiles of 256 px, the whole from S3, over the slower of its halves alone: reading without a model, and the engine
  without anything else; slides were analysed before all of them. Bar: 0.8 with a core for each half, in turns, each slide over its halves
  right before and after it, the median; and 500 tiles/s. A half that has all cores alone shares them in the whole: of what both compute,
  at most 1 / (1/reading + 1/engine) is possible together. That is told beside, without a bar.
- A classifier of ResNet-18's shape over its engine alone, in turns as above. Bar: 0.9.
- Peak memory of a server that analyses the slide, two and four at the same time, with tiles of several sizes, and one of a quarter of its
  area. Bars: 1.2 GB, and 10 % of each other. With `--slide` the quarter is a slide that is made, with other tissue, and has no bar.
- Slides one after the other and two at a time: how long no model call runs between them. No bar.
- Bytes that were read over those of the tiles that an analysis needs. Bar: 1.1.

Run: python benchmarks/slides.py [--check] [--parts raw,decode,he_baseline,classifier,several,memory] [--slide FILE] [--edge 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from benchmarks.large_slides import write_large_slide
from benchmarks.support.choices import existing_file, some_of
from benchmarks.support.slides.flow import edge_of, memory, several
from benchmarks.support.slides.measures import BUCKET, Bench, Rows, make_models
from benchmarks.support.slides.reading import decoded_tiles, raw_tiles
from benchmarks.support.slides.speed import classified, whole_slides
from inference_server.allocator import leave_to_itself
from inference_server.app import prepare_process
from inference_server.engine.runtimes import discover
from inference_server.engine.selection.selector import EngineSelector
from inference_server.models.repository import ModelRepository
from inference_server.scheduler.registry import ServingModels
from inference_server.storage.storage import Storage
from inference_server.threads import keep_opencv_single
from tests.support.slides.range_server import RangeServer, range_server

PARTS: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "raw": raw_tiles,
    "decode": decoded_tiles,
    "he_baseline": whole_slides,
    "classifier": classified,
    "several": several,
}
# Comes last, when no model is loaded here any more.
MEMORY = "memory"


async def measure(folder: Path, server: RangeServer, parts: Sequence[str], *, own: bool) -> Rows:
    """All parts that were asked for. `own`: whether the slide is one that `large_slides.py` did not make."""
    repository = ModelRepository(folder / "models")
    selector = EngineSelector(discover(device="cpu"))
    models = ServingModels(repository, {"cpu": selector}, metrics=CollectorRegistry())
    await models.load_all()
    # As the server does, whose full collections would else look at all of it.
    leave_to_itself()
    storage = Storage(read_roots=(f"s3://{BUCKET}",), write_roots=(str(folder),), allow_http=True)
    bench = Bench(folder=folder, server=server, storage=storage, models=models, selector=selector, rows=Rows())
    for part in parts:
        if part in PARTS:
            await PARTS[part](bench)
    await models.close(grace_seconds=5.0)
    if MEMORY in parts:
        await asyncio.to_thread(memory, bench, await edge_of(bench), own=own)
    return bench.rows


def main() -> int:
    """Measure; with --check the exit status tells whether all bars are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--parts", type=some_of((*PARTS, MEMORY)), default=(*PARTS, MEMORY))
    parser.add_argument("--slide", type=existing_file, help="a slide of one's own; made by large_slides.py by default")
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
            # As the server does.
            prepare_process()
            keep_opencv_single()
            rows = uvloop.run(measure(folder, server, given.parts, own=given.slide is not None))
    told = Table("what", "measured", "bar", "", title=f"Slides; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for row in rows.told:
        told.add_row(*row)
    Console(width=140).print(told)
    return int(given.check and not rows.met)


if __name__ == "__main__":
    sys.exit(main())
