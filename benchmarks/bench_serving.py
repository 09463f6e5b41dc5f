"""How much of an engine's own speed is served through gRPC, and does the server answer while it computes?

One run starts the server with MiniLM and asks it from one process with 1, 16 and 64 callers of one text each. The peer is a plain
loop over the same engine in this process, with batches of 32. Bar: ServerLive within 50 ms while the model computes.

Run: python benchmarks/bench_serving.py [--check] [--seconds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import grpc
import numpy as np
import onnxruntime
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc
from rich.console import Console
from rich.table import Table

from inference_server.models.builders import BUILDERS

MODEL = "all_minilm_l6_v2"
TOKENS = 32
LIVE_LIMIT_MS = 50.0


def main() -> int:
    """Print the table; 1 when `--check` was given and the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        models.mkdir()
        BUILDERS[MODEL](models)
        direct = measure_direct(models / MODEL / "1" / "model.onnx", options.seconds)
        with running_server(models, Path(folder)) as address:
            rows, worst_live = asyncio.run(measure_served(address, options.seconds))
    table = Table(title=f"MiniLM, {TOKENS} tokens, ONNX Runtime float32, {platform.machine()}, {os.cpu_count()} cores")
    for column in ("callers", "texts/s", "of the direct loop", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for callers, rate, latencies in rows:
        p50, p99 = (1000 * float(np.percentile(latencies, q)) for q in (50, 99))
        table.add_row(str(callers), f"{rate:.0f}", f"{rate / direct:.2f}", f"{p50:.1f}", f"{p99:.1f}")
    console = Console(width=100)
    console.print(table)
    console.print(f"direct loop, batches of 32: {direct:.0f} texts/s")
    share = worst_live / LIVE_LIMIT_MS
    console.print(f"ServerLive while 64 callers are served: worst {worst_live:.1f} ms, {share:.2f} of the limit of {LIVE_LIMIT_MS:.0f} ms")
    return int(options.check and worst_live > LIVE_LIMIT_MS)


def measure_direct(model: Path, seconds: float) -> float:
    """Texts per second of a loop over the engine."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    batch = {"input_ids": np.full((32, TOKENS), 2003, np.int64), "attention_mask": np.ones((32, TOKENS), np.int64)}
    session.run(None, batch)
    times = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        begun = time.perf_counter()
        session.run(None, batch)
        times.append(time.perf_counter() - begun)
    return 32 / median(times)


@contextmanager
def running_server(models: Path, folder: Path) -> Iterator[str]:
    """A server of its own process; its gRPC address."""
    command = [sys.executable, "-m", "inference_server", "serve", "--models", str(models), "--engine", "onnxruntime"]
    command += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--engine-cache", str(folder / "engines")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield _wait_until_ready(folder / "log")
    finally:
        process.terminate()
        process.wait(30)


async def measure_served(address: str, seconds: float) -> tuple[list[tuple[int, float, list[float]]], float]:
    """For each number of callers its rate and latencies; and the slowest ServerLive, in milliseconds."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = wire_grpc.GRPCInferenceServiceStub(channel)
        rows = [(callers, *await _load(stub, callers, seconds)) for callers in (1, 16, 64)]
        probing = asyncio.create_task(_worst_live(stub, seconds))
        await _load(stub, 64, seconds)
        return rows, 1000 * await probing


def _wait_until_ready(log: Path) -> str:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        events = {entry["event"]: entry for entry in map(json.loads, log.read_text().splitlines())}
        if "ready" in events:
            return str(events["listening"]["grpc"])
        time.sleep(0.1)
    raise SystemExit(f"the server did not become ready; its log:\n{log.read_text()}")


async def _load(stub: wire_grpc.GRPCInferenceServiceStub, callers: int, seconds: float) -> tuple[float, list[float]]:
    request = wire.ModelInferRequest(
        model_name=MODEL,
        inputs=[
            wire.ModelInferRequest.InferInputTensor(name=name, datatype="INT64", shape=[1, TOKENS])
            for name in ("input_ids", "attention_mask")
        ],
        raw_input_contents=[np.full(TOKENS, 2003, np.int64).tobytes(), np.ones(TOKENS, np.int64).tobytes()],
    )
    latencies: list[float] = []
    begun = time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() - begun < seconds:
            started = time.perf_counter()
            await stub.ModelInfer(request, timeout=60)
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(latencies) / (time.perf_counter() - begun), latencies


async def _worst_live(stub: wire_grpc.GRPCInferenceServiceStub, seconds: float) -> float:
    worst = 0.0
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        begun = time.perf_counter()
        await stub.ServerLive(wire.ServerLiveRequest(), timeout=10)
        worst = max(worst, time.perf_counter() - begun)
        await asyncio.sleep(0.02)
    return worst


if __name__ == "__main__":
    sys.exit(main())
