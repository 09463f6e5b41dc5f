"""How many distinct lab tests a second are matched through gRPC against a whole LOINC table, and in what memory?

- Tests per second of four callers with 100 tests a request, no two tests alike; and per two seconds of processor time, which other work
  on the machine changes less. Bar: 600.
- Memory of `inference-server serve --services labs` after them. Bar: 450 MiB.

Without `--table` the catalogue is made up: 33,000 codes with invented components beside the built-in ones.

Run: python benchmarks/labs.py [--check] [--table Loinc.csv] [--tests 4000]
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc.aio
from lamina.v1 import labs_pb2, labs_pb2_grpc
from rich.console import Console
from rich.table import Table

from benchmarks.support.choices import existing_file
from benchmarks.support.process_tree import cpu_seconds, memory_bytes
from inference_server.models.builders import BUILDERS
from inference_server.tasks.labs.catalogue.catalogue import load_catalogue
from inference_server.tasks.labs.training.printed import Printer
from tests.support.inference_server.server_process import ServerProcess, running_server

CODES = 33_000
CALLERS, OF_A_REQUEST = 4, 100
LEAST_RATE = 600.0
MOST_MEMORY = 450 * 2**20
_SYLLABLES = [
    "al",
    "bor",
    "cen",
    "dal",
    "eth",
    "fen",
    "gol",
    "hex",
    "iso",
    "kar",
    "lut",
    "mer",
    "nor",
    "oxa",
    "per",
    "qui",
    "ros",
    "sil",
    "tri",
    "urs",
    "vel",
    "xan",
    "yl",
    "zor",
]
_AXES = (("MCnc", "Ser/Plas", "Qn"), ("SCnc", "Ser/Plas", "Qn"), ("MCnc", "Urine", "Qn"), ("PrThr", "Ser", "Ord"), ("NCnc", "Bld", "Qn"))


def main() -> int:
    """Print the figures; 1 when `--check` was given and a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--table", type=existing_file, help="Loinc.csv to import; made up by default")
    parser.add_argument("--tests", type=int, default=4000, help="distinct tests that are sent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        models = Path(name) / "models"
        models.mkdir()
        BUILDERS["all_minilm_l6_v2"](models)
        table = options.table or made_up(Path(name) / "Loinc.csv")
        command = [sys.executable, "-m", "inference_server", "catalogue", "import", str(table.resolve()), "--models", str(models)]
        subprocess.run(command, check=True)
        tests = distinct_tests(models, options.tests)
        with running_server(models, Path(name), "--services", "labs") as server:
            server.wait_for("catalogue_ready", seconds=300)
            rate, of_processor, memory = measured(server, tests)
    rows = (
        ("distinct tests/s", f"{rate:.0f}", rate >= LEAST_RATE),
        ("distinct tests per two seconds of processor", f"{of_processor:.0f}", of_processor >= LEAST_RATE),
        ("memory, labs alone", f"{memory / 2**20:.0f} MiB", memory <= MOST_MEMORY),
    )
    told = Table("what", "measured", "bar", title=f"Lab tests; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for what, figure, met in rows:
        told.add_row(what, figure, "met" if met else "MISSED")
    Console(width=120).print(told)
    return int(options.check and not all(met for _, _, met in rows))


def made_up(path: Path) -> Path:
    """A table of invented components with LOINC's own column names."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["LOINC_NUM", "COMPONENT", "PROPERTY", "TIME_ASPCT", "SYSTEM", "SCALE_TYP", "CLASS", "LONG_COMMON_NAME"])
        names = (" ".join((f"{a}{b}", f"{c}{d}")).title() for a, b, c, d in itertools.product(_SYLLABLES, repeat=4))
        kinds = ((name, axes) for name in itertools.islice(names, 0, None, 37) for axes in _AXES)
        for number, (component, (quantity, system, scale)) in enumerate(itertools.islice(kinds, CODES)):
            writer.writerow(
                [f"{500_000 + number}-{number % 10}", component, quantity, "Pt", system, scale, "CHEM", f"{component} in {system}"]
            )
    return path


def distinct_tests(models: Path, count: int) -> list[labs_pb2.LabTest]:
    """Tests as laboratories print them, of codes drawn from the whole catalogue; no two names alike."""
    entries, printer, draw = load_catalogue(models).entries, Printer(9), random.Random(1)
    tests: dict[str, labs_pb2.LabTest] = {}
    while len(tests) < count:
        printed = printer.print(draw.choice(entries))
        if printed.name.strip():
            tests[printed.name] = labs_pb2.LabTest(name=printed.name, unit=printed.unit, specimen=printed.specimen, value=printed.value)
    return list(tests.values())


def measured(server: ServerProcess, tests: list[labs_pb2.LabTest]) -> tuple[float, float, int]:
    """Tests per second, per two seconds of the server's processor time, and its memory afterwards."""
    before, begun = cpu_seconds(server.process.pid), time.perf_counter()
    asyncio.run(drive(server.grpc, tests))
    seconds, used = time.perf_counter() - begun, cpu_seconds(server.process.pid) - before
    return len(tests) / seconds, 2 * len(tests) / used, memory_bytes(server.process.pid)


async def drive(address: str, tests: list[labs_pb2.LabTest]) -> None:
    """Send every test once."""
    requests = [labs_pb2.ClassifyLabTestsRequest(tests=tests[at : at + OF_A_REQUEST]) for at in range(0, len(tests), OF_A_REQUEST)]
    async with grpc.aio.insecure_channel(address) as channel:
        stub = labs_pb2_grpc.LabServiceStub(channel)

        async def call() -> None:
            while requests:
                await stub.ClassifyLabTests(requests.pop())

        await asyncio.gather(*(call() for _ in range(CALLERS)))


if __name__ == "__main__":
    sys.exit(main())
