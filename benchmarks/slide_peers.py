"""Is a slide classified faster than by TIAToolbox, with the same network, weights and slide, and to the same end?

A ResNet-18 of fixed weights over tiles of 224 px at 0.5 µm/px, all of them tissue, on the same two cores: from the request to the
written result, each with its network loaded and after one run that does not count. TIAToolbox comes with PyTorch, 6 GB in an environment
of its own under `.cache/peers`; its `PatchPredictor` runs with and without loading workers, and the faster run counts.

- Our tiles a second over TIAToolbox's. Bar: 3.
- Mean difference of a tile's probabilities. Bar: 0.01.

Run: python benchmarks/slide_peers.py [--check] [--rounds 2] [--edge 4096]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import grpc
import numpy as np
import pyarrow.parquet as pq
from lamina.v1 import slides_pb2, slides_pb2_grpc
from rich.console import Console
from rich.table import Table

from benchmarks.support.peers.environments import WORKERS, PeerMissing, environment
from tests.support.inference_server.server_process import running_server
from tests.support.slides.painted import paint, scattered, write_svs

LEAST_RATIO = 3.0
MOST_DIFFERENCE = 0.01
TILE, MPP, BATCH, PIECE = 224, 0.5, 32, 512
CLASSES = ("a", "b", "c", "d")
_CORES = 2
_WORKER = WORKERS / "tiatoolbox_classifier.py"


@dataclass(frozen=True, kw_only=True)
class Classified:
    """One run over the slide."""

    seconds: float
    # By corner of the tile in pixels of level 0.
    probabilities: Mapping[tuple[int, int], tuple[float, ...]]

    @property
    def rate(self) -> float:
        """Tiles a second."""
        return len(self.probabilities) / self.seconds


def main() -> int:
    """Print the figures; 1 when `--check` was given and a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each, in turns; the fastest counts")
    parser.add_argument("--edge", type=int, default=4096, help="edge of the slide in pixels, a multiple of 512")
    options = parser.parse_args()
    # All that is started has the same cores, and as many threads as those.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_CORES])
    try:
        python = environment("tiatoolbox")
    except PeerMissing as missing:
        print(f"nothing to compare with: {missing}")
        return int(options.check)
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = compared(python, Path(name), edge=options.edge, rounds=options.rounds)
    # Edge tiles that reach over the slide's end are theirs to skip or to fill.
    common = ours.probabilities.keys() & theirs.probabilities.keys()
    spread = float(np.std(list(theirs.probabilities.values()), axis=0).mean())
    difference = mean(float(np.abs(np.subtract(ours.probabilities[tile], theirs.probabilities[tile])).mean()) for tile in common)
    ratio = ours.rate / theirs.rate
    told = Table("what", "Lamina", "TIAToolbox", "compared", "bar", title=f"ResNet-18 over {len(common)} tiles of {TILE} px")
    met = (ratio >= LEAST_RATIO, difference <= MOST_DIFFERENCE)
    told.add_row("tiles/s", f"{ours.rate:.1f}", f"{theirs.rate:.1f}", f"{ratio:.2f} times", _verdict(met[0], f"≥ {LEAST_RATIO:g}"))
    told.add_row("probabilities", "", f"spread {spread:.3f}", f"{difference:.4f} apart", _verdict(met[1], f"≤ {MOST_DIFFERENCE:g}"))
    Console(width=120).print(told)
    return int(options.check and not all(met))


def _verdict(met: bool, bar: str) -> str:
    return f"{bar}: {'met' if met else 'MISSED'}"


def compared(python: Path, folder: Path, *, edge: int, rounds: int) -> tuple[Classified, Classified]:
    """The fastest run of each."""
    piece = paint(
        PIECE, PIECE, tissue=(0, 0, PIECE, PIECE), nuclei=scattered(40, within=(20, 20, PIECE - 22, PIECE - 22), apart=25), noise=2.0
    )
    # Darker from left to right, so that tiles differ.
    shade = np.linspace(1.0, 0.6, edge)[None, :, None]
    slide = write_svs(folder / "slide.svs", (np.tile(piece, (edge // PIECE, edge // PIECE, 1)) * shade).astype(np.uint8), tile=256)
    _write_model(python, folder / "models")
    ours, theirs = [], []
    for _ in range(rounds):
        ours += _ours(folder, slide)
        theirs += [_theirs(python, slide, workers) for workers in (0, 2)]
    return max(ours, key=lambda run: run.rate), max(theirs, key=lambda run: run.rate)


def _write_model(python: Path, models: Path) -> None:
    version = models / "resnet18" / "1"
    version.mkdir(parents=True)
    subprocess.run([python, _WORKER, "export", version], check=True, capture_output=True)
    manifest = {"mpp": MPP, "tile_size": TILE, "classes": CLASSES, "activation": "none", "least_tissue": 0.0}
    (models / "resnet18" / "slide.json").write_text(json.dumps(manifest))


def _ours(folder: Path, slide: Path) -> list[Classified]:
    """A first run, for what is done once, and one that counts."""
    runs = []
    roots = ["--read-roots", str(folder), "--write-roots", str(folder)]
    with running_server(folder / "models", folder, "--services", "slides", *roots) as server, grpc.insecure_channel(server.grpc) as channel:
        server.wait_for("ready", seconds=120)
        stub = slides_pb2_grpc.SlideServiceStub(channel)
        for number in range(2):
            output = folder / f"found-{time.monotonic_ns()}"
            begun = time.perf_counter()
            request = slides_pb2.AnalyzeSlideRequest(slide_uri=str(slide), analysis="resnet18", output_uri=str(output))
            for _ in stub.AnalyzeSlide(request, timeout=600, wait_for_ready=True):
                pass
            seconds = time.perf_counter() - begun
            if number:
                runs.append(Classified(seconds=seconds, probabilities=_written(output / "tiles.parquet")))
    return runs


def _written(table: Path) -> dict[tuple[int, int], tuple[float, ...]]:
    rows = pq.read_table(table).to_pylist()
    return {(row["x"], row["y"]): tuple(row[f"p({name})"] for name in CLASSES) for row in rows}


def _theirs(python: Path, slide: Path, workers: int) -> Classified:
    command = [python, _WORKER, "classify", slide, str(TILE), str(MPP), str(BATCH), str(workers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told = json.loads(done.stdout.splitlines()[-1])
    corners = (tuple(corner) for corner in told["tiles"])
    return Classified(seconds=told["seconds"], probabilities=dict(zip(corners, map(tuple, told["probabilities"]), strict=True)))


if __name__ == "__main__":
    sys.exit(main())
