"""How much of an engine's own speed is served through gRPC, what does the way there and back take, and does the server keep its memory?

- MiniLM, one text a request: texts per second of 64 callers, over those of a loop over the same engine in this process with its best
  batch. Bar: 0.95 with ONNX Runtime. With the engine that the server chooses by itself it is told too; the callers, which share the cores
  with the server, then take a part of them that counts.
- Light load: the median of one caller's waits, less that of a call of the engine in this process. Bar: 1 ms.
- ServerLive while the model computes for 64 callers. Bar: 50 ms.
- Memory after so many small requests, less that after a tenth of them. Bar: 8 MiB.

Run: python benchmarks/serving.py [--check] [--seconds 4] [--memory-requests 200000]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc
import grpc.aio
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc
from rich.console import Console
from rich.table import Table

from benchmarks.support.process_tree import memory_bytes
from benchmarks.support.serving.load import MINILM, drive, text_request, text_tensors, trivial_request
from benchmarks.support.serving.servers import Server, running, write_repository
from inference_server.engine.port import Engine
from inference_server.engine.runtimes import discover
from inference_server.engine.selection.selector import EngineSelector
from inference_server.models.builders import BUILDERS

CALLERS = 64
BATCHES = (1, 8, 16, 32, 64)
ROUNDS = 3
LEAST_SHARE = 0.95
MOST_ADDED_MS = 1.0
MOST_LIVE_MS = 50.0
MOST_GROWTH = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was measured, and its bar."""

    name: str
    told: str
    # None when it has no bar.
    met: bool | None


def main() -> int:
    """Print the figures; 1 when `--check` was given and a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    parser.add_argument("--memory-requests", type=int, default=200_000, help="requests after which memory is compared")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "built").mkdir()
        BUILDERS[MINILM](folder / "built")
        write_repository(folder / "models", folder / "built" / MINILM)
        with running("lamina", folder / "models", folder / "pinned") as server:
            figures = [throughput(server, folder, options.seconds, has_bar=True), light_load(server, folder, options.seconds)]
            figures.append(asyncio.run(live(server.address, options.seconds)))
            figures.append(memory(server, options.memory_requests))
        with running("lamina-auto", folder / "models", folder / "auto") as server:
            figures.append(throughput(server, folder, options.seconds, has_bar=False))
    table = Table("what", "measured", "bar", title="Serving")
    for figure in figures:
        table.add_row(figure.name, figure.told, "-" if figure.met is None else "met" if figure.met else "MISSED")
    Console(width=140).print(table)
    return int(options.check and any(figure.met is False for figure in figures))


def throughput(server: Server, folder: Path, seconds: float, *, has_bar: bool) -> Figure:
    """Texts per second served and in a loop, in turns, the best round of each."""
    name, engine = _engine(server, folder)
    loop = dict.fromkeys(BATCHES, 0.0)
    served = 0.0
    for _ in range(ROUNDS):
        for batch in BATCHES:
            loop[batch] = max(loop[batch], batch / _median_seconds(engine, batch, seconds / len(BATCHES)))
        load = drive(server.address, text_request(), callers=CALLERS, seconds=seconds)
        served = max(served, load.rate)
    best = max(loop, key=lambda batch: loop[batch])
    told = f"{served:.0f} texts/s of {loop[best]:.0f} in a loop with batches of {best}: {served / loop[best]:.2f}"
    met = served / loop[best] >= LEAST_SHARE if has_bar else None
    return Figure(name=f"MiniLM, {CALLERS} callers, {name}{'' if has_bar else ' by choice'}", told=told, met=met)


def light_load(server: Server, folder: Path, seconds: float) -> Figure:
    """What one caller waits beside the engine, in turns, the best round of each."""
    _, engine = _engine(server, folder)
    rounds = [
        (1000 * _median_seconds(engine, 1, seconds), drive(server.address, text_request(), callers=1, seconds=seconds).percentile(50))
        for _ in range(ROUNDS)
    ]
    direct, served = (min(values) for values in zip(*rounds, strict=True))
    told = f"p50 {served:.2f} ms served, {direct:.2f} ms direct: {served - direct:.2f} ms added"
    return Figure(name="MiniLM, one caller", told=told, met=served - direct <= MOST_ADDED_MS)


async def live(address: str, seconds: float) -> Figure:
    """The slowest ServerLive while the model computes."""
    loading = asyncio.create_task(asyncio.to_thread(drive, address, text_request(), callers=CALLERS, seconds=seconds))
    worst = 0.0
    async with grpc.aio.insecure_channel(address) as channel:
        stub = wire_grpc.GRPCInferenceServiceStub(channel)
        while not loading.done():
            begun = time.perf_counter()
            await stub.ServerLive(wire.ServerLiveRequest(), timeout=10)
            worst = max(worst, 1000 * (time.perf_counter() - begun))
            await asyncio.sleep(0.02)
    await loading
    return Figure(name=f"ServerLive beside {CALLERS} callers", told=f"worst {worst:.1f} ms", met=worst <= MOST_LIVE_MS)


def memory(server: Server, requests: int) -> Figure:
    """Growth of the server's memory."""

    def after(count: int) -> int:
        drive(server.address, trivial_request(64), callers=CALLERS, requests=count)
        return memory_bytes(server.pid)

    first, last = after(requests // 10), after(requests - requests // 10)
    told = f"{first / 2**20:.1f} MiB after {requests // 10}, {last / 2**20:.1f} MiB after {requests}: {(last - first) / 2**20:+.1f} MiB"
    return Figure(name="Memory after small requests", told=told, met=last - first <= MOST_GROWTH)


def _engine(server: Server, folder: Path) -> tuple[str, Engine]:
    """The engine that serves MiniLM, as engine:precision, and the same in this process."""
    with grpc.insecure_channel(server.address) as channel:
        ask: Callable[..., wire.ModelMetadataResponse] = wire_grpc.GRPCInferenceServiceStub(channel).ModelMetadata
        name = ask(wire.ModelMetadataRequest(name=MINILM), timeout=10).platform
    return name, EngineSelector(discover(device="cpu")).load(folder / "models" / MINILM / "1" / "model.onnx", name)


def _median_seconds(engine: Engine, batch: int, seconds: float) -> float:
    tensors = text_tensors(batch)
    engine.run(tensors)
    times = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or not times:
        begun = time.perf_counter()
        engine.run(tensors)
        times.append(time.perf_counter() - begun)
    return median(times)


if __name__ == "__main__":
    sys.exit(main())
