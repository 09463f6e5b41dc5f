"""What the simulation is fed with: how long this machine's real programs take, each server with a few callers.

Servers are measured by the processor time that they use, which other work on the machine changes little.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.aggregation import measure as measure_rollups
from benchmarks.support.process_tree import cpu_seconds
from bridge.inference.client import InferenceClient
from bridge.inference.documents import DocumentPage
from bridge.inference.labs import LabTest
from bridge.inference.slides import SlideOptions, SlideResult
from inference_server.models.builders import BUILDERS
from scripts.demo_inputs import write_lab_report, write_slide
from tests.support.inference_server.server_process import ServerProcess, running_server
from tests.support.servers.postgres import postgres_server

_CALLERS = 4
_SECONDS = 6.0
_ROWS = 200_000
_TESTS = ["Hemoglobin", "Glukosa puasa", "Trombosit", "Creatinine", "SGPT", "Leukosit", "Kolesterol total", "TSH", "Natrium", "Kalium"]
_SERVED = {"slides": "he_baseline", "documents": "ppocr", "labs": "all_minilm"}


def measure() -> dict[str, Any]:
    """The figures, as `measured.toml` has them. Takes two minutes."""
    found: dict[str, Any] = {
        "machine": _machine(),
        "day": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "start_seconds": {},
        "rates": {},
    }
    with TemporaryDirectory() as place:
        folder = Path(place)
        for service, calls in (("slides", _slides), ("documents", _documents), ("labs", _labs)):
            found["start_seconds"][service], found["rates"][service] = _served(folder, service, calls)
    with postgres_server(fsync="on", full_page_writes="on") as postgres:
        seconds, _ = asyncio.run(measure_rollups(postgres, _ROWS))
    found["rates"]["rollups"] = round(_ROWS / seconds)
    return found


def _machine() -> str:
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "CPU")
    return f"{os.cpu_count()} cores of {model}, {platform.system()}, Python {platform.python_version()}"


def _served(folder: Path, service: str, calls: Callable[[InferenceClient, Path], Awaitable[float]]) -> tuple[float, float]:
    """Processor seconds until the server is ready, with its engines chosen before; and units a second."""
    models = folder / service
    models.mkdir()
    for name, build in BUILDERS.items():
        if name.startswith(_SERVED[service]):
            build(models)
    flags = ("--services", service, "--read-roots", str(folder), "--write-roots", str(folder))
    with running_server(models, folder, *flags) as server:
        server.wait_for("ready", seconds=120)
    with running_server(models, folder, *flags) as server:
        server.wait_for("ready", seconds=120)
        started = cpu_seconds(server.process.pid)
        return round(started, 1), round(asyncio.run(_rate(server, folder, calls)), 1)


async def _rate(server: ServerProcess, folder: Path, calls: Callable[[InferenceClient, Path], Awaitable[float]]) -> float:
    """Units a second of a machine that has nothing else to do."""
    async with InferenceClient(server.grpc) as client:
        await calls(client, folder)
        began, used, done = time.monotonic(), cpu_seconds(server.process.pid), 0.0

        async def call_on() -> None:
            nonlocal done
            while time.monotonic() - began < _SECONDS:
                done += await calls(client, folder)

        await asyncio.gather(*(call_on() for _ in range(_CALLERS)))
        return (os.cpu_count() or 1) * done / (cpu_seconds(server.process.pid) - used)


async def _slides(client: InferenceClient, folder: Path) -> float:
    """One slide; returns its tiles."""
    slide = folder / "slide.tiff"
    if not slide.exists():
        write_slide(slide, size=8192)
    options = SlideOptions(output_uri=str(folder / "out"))
    async with aclosing(client.analyze_slide(str(slide), request_id="measure", options=options)) as events:
        results = [event async for event in events if isinstance(event, SlideResult)]
    return float(results[0].tiles_analyzed)


async def _documents(client: InferenceClient, folder: Path) -> float:
    """One document; returns its pages."""
    report = folder / "report.pdf"
    if not report.exists():
        write_lab_report(report)
    async with aclosing(client.recognize_document(request_id="measure", document_uri=str(report))) as events:
        return float(len([event async for event in events if isinstance(event, DocumentPage)]))


async def _labs(client: InferenceClient, folder: Path) -> float:
    """One list of tests that differ from those before; returns its tests."""
    stamp = time.monotonic_ns()
    tests = [LabTest(id=str(number), name=f"{name} {stamp % 1000}", value="1", unit="mg/dL") for number, name in enumerate(_TESTS * 2)]
    await client.classify_lab_tests(tests, request_id="measure")
    return float(len(tests))


if __name__ == "__main__":
    sys.exit("run benchmarks/autoscale.py --measure")
