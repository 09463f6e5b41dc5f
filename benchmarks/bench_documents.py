"""How fast and how well are documents read through gRPC, beside RapidOCR with the same models, and Tesseract where it is found?

- Pages per second of four callers on all cores over those of RapidOCR's own loop, in one run, by turns. Bar: 4.
- The same over Tesseract's with a process a core. Bar: 1.
- Median time of one page alone over RapidOCR's. Bar: 0.5.
- Memory of `inference-server serve --services documents` after all pages, over that after the first tenth. Bar: 1.05.
- Character error rate in reading order and F1 of the words, by kind of page, of Lamina and of RapidOCR.

The pages are rendered and worn (`tests/support/composed_pages.py`, `worn_pages.py`).

Run: python benchmarks/bench_documents.py [--check] [--pages 2000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc.aio
from lamina.v1 import documents_pb2, documents_pb2_grpc
from process_tree import cpu_seconds, memory_bytes
from rapidocr import RapidOCR
from rich.console import Console
from rich.table import Table

from inference_server.models.builders import BUILDERS
from inference_server.tasks.documents.evaluation import PageFigures, page_figures
from tests.support.composed_pages import ComposedPage, columns, form, lab_report, receipt
from tests.support.server_process import ServerProcess, running_server
from tests.support.worn_pages import Wear, scanned

CALLERS = 4
LEAST_OVER_RAPIDOCR, LEAST_OVER_TESSERACT = 4.0, 1.0
MOST_MEDIAN, MOST_GROWTH = 0.5, 1.05
_TESSERACT = ("tesseract", "-", "-", "--psm", "1")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Pages of one kind, and how well they are to be read."""

    name: str
    compose: Callable[[int], ComposedPage]
    wear: Wear
    # Highest character error rate, or 1 where only words count.
    most_errors: float = 1.0
    # Lowest F1 of the words.
    least_f1: float = 0.0


KINDS = (
    Kind(name="forms", compose=form, wear=Wear(dpi=100, noise=8, jpeg=60), least_f1=0.9),
    Kind(name="forms, blurred", compose=form, wear=Wear(dpi=100, blur=1.0, noise=10, jpeg=40), least_f1=0.9),
    Kind(name="receipts", compose=receipt, wear=Wear(dpi=150, noise=8, jpeg=60), least_f1=0.95),
    Kind(name="lab reports", compose=lab_report, wear=Wear(dpi=150), most_errors=0.02),
    Kind(name="lab reports at 90 dpi", compose=lab_report, wear=Wear(dpi=90, blur=0.5, noise=8, jpeg=60), most_errors=0.02),
    Kind(name="two columns", compose=columns, wear=Wear(dpi=150), most_errors=0.02),
    Kind(name="three columns", compose=lambda seed: columns(seed, 3), wear=Wear(dpi=150), most_errors=0.02),
    Kind(name="turned by 90°", compose=lab_report, wear=Wear(dpi=150, quarter_turns=1), most_errors=0.05),
    Kind(name="turned by 180°", compose=lab_report, wear=Wear(dpi=150, quarter_turns=2), most_errors=0.05),
    Kind(name="askew by 3°", compose=columns, wear=Wear(dpi=150, skew_degrees=3), most_errors=0.05),
    Kind(name="askew by 14°", compose=lab_report, wear=Wear(dpi=150, skew_degrees=-14), most_errors=0.05),
)
# Of the pages in one turn of ours.
_REPEATS = 3
# What speed is measured on.
_TIMED = ("forms", "receipts", "lab reports")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure."""

    what: str
    figure: str
    bar: str = ""
    is_met: bool = True


def main() -> int:
    """Print the figures; 1 when `--check` was given and a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--pages", type=int, default=2000, help="pages over which memory is watched")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each program; the fastest counts")
    parser.add_argument("--of-a-kind", type=int, default=3, help="pages of each kind")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    rapidocr = RapidOCR()
    with tempfile.TemporaryDirectory() as name:
        models = Path(name) / "models"
        models.mkdir()
        for model in ("ppocrv6_small_det", "ppocrv6_small_rec"):
            BUILDERS[model](models)
        with running_server(models, Path(name), "--services", "documents") as server:
            server.wait_for("ready", seconds=120)
            accuracy = accuracy_rows(server, rapidocr, options.of_a_kind)
            pages = [content_of(kind, seed) for kind in KINDS if kind.name in _TIMED for seed in range(options.of_a_kind)]
            times = measured(server, rapidocr, pages, options.rounds)
            rows = [*speed_rows(times, len(pages)), memory_row(server, pages, options.pages)]
    show("Reading documents", rows)
    show("How well they are read: CER in reading order, F1 of words; RapidOCR's in brackets", accuracy)
    return int(options.check and not all(row.is_met for row in [*rows, *accuracy]))


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table."""
    table = Table("what", "measured", "bar", "", title=f"{title}; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for row in rows:
        table.add_row(row.what, row.figure, row.bar, ("met" if row.is_met else "MISSED") if row.bar else "")
    Console(width=140).print(table)


def content_of(kind: Kind, seed: int) -> bytes:
    """A page's file: JPEG where the wear has one, else PNG."""
    out = io.BytesIO()
    image = scanned(kind.compose(seed), kind.wear, seed)
    image.save(out, "JPEG" if kind.wear.jpeg else "PNG", **({"quality": 90} if kind.wear.jpeg else {}))
    return out.getvalue()


def accuracy_rows(server: ServerProcess, rapidocr: RapidOCR, of_a_kind: int) -> list[Row]:
    """How well each kind is read."""
    rows = []
    for kind in KINDS:
        truths = [kind.compose(seed).truth for seed in range(of_a_kind)]
        contents = [content_of(kind, seed) for seed in range(of_a_kind)]
        ours = compared(truths, asyncio.run(read_by_callers(server.grpc, contents)))
        theirs = compared(truths, ["\n".join(rapidocr(content).txts or ()) for content in contents])
        rows.append(
            Row(
                what=kind.name,
                figure=f"CER {ours[0]:.3f} ({theirs[0]:.3f}), F1 {ours[1]:.3f} ({theirs[1]:.3f})",
                bar=f"F1 at least {kind.least_f1}" if kind.least_f1 else f"CER at most {kind.most_errors}",
                is_met=ours[0] <= kind.most_errors and ours[1] >= kind.least_f1,
            )
        )
    return rows


def compared(truths: Sequence[str], texts: Sequence[str]) -> tuple[float, float]:
    """Mean character error rate and F1 of the words."""
    figures: list[PageFigures] = [page_figures(known, read, document="", page=0) for known, read in zip(truths, texts, strict=True)]
    return statistics.mean(page.character_error_rate for page in figures), statistics.mean(page.bag_f1 for page in figures)


@dataclass(kw_only=True)
class Times:
    """Seconds that the programs took for all pages, by round, for each page alone, and of processor in all."""

    ours: list[float] = field(default_factory=list)
    rapidocr: list[float] = field(default_factory=list)
    tesseract: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    rapidocr_alone: list[float] = field(default_factory=list)
    processor: float = 0.0
    rapidocr_processor: float = 0.0


def measured(server: ServerProcess, rapidocr: RapidOCR, pages: Sequence[bytes], rounds: int) -> Times:
    """Have the programs read the pages by turns."""
    times = Times()
    for _ in range(rounds):
        times.processor -= cpu_seconds(server.process.pid)
        times.ours.append(timed(lambda: asyncio.run(read_by_callers(server.grpc, pages * _REPEATS))) / _REPEATS)
        times.processor += cpu_seconds(server.process.pid)
        times.rapidocr_processor -= time.process_time()
        alone = [timed(lambda page=page: rapidocr(page)) for page in pages]
        times.rapidocr_processor += time.process_time()
        times.rapidocr.append(sum(alone))
        times.rapidocr_alone += alone
        times.alone += [timed(lambda page=page: asyncio.run(read_by_callers(server.grpc, [page]))) for page in pages]
        if shutil.which("tesseract"):
            times.tesseract.append(timed(lambda: tesseract_reads(pages)))
    return times


def speed_rows(times: Times, pages: int) -> list[Row]:
    """Pages per second, the processor's part in them, and the time of one page alone."""
    rounds, ours = len(times.ours), min(times.ours)
    speed = min(times.rapidocr) / ours
    alone, rapidocr_alone = statistics.median(times.alone), statistics.median(times.rapidocr_alone)
    of_a_page, of_rapidocr = times.processor / (_REPEATS * rounds * pages), times.rapidocr_processor / (rounds * pages)
    return [
        Row(
            what=f"pages/s of {CALLERS} callers: {pages / ours:.2f}; RapidOCR {pages / min(times.rapidocr):.2f}",
            figure=f"{speed:.2f} times",
            bar=f"at least {LEAST_OVER_RAPIDOCR:g}",
            is_met=speed >= LEAST_OVER_RAPIDOCR,
        ),
        Row(
            what=f"processor time of a page: {of_a_page:.2f} s; RapidOCR {of_rapidocr:.2f} s",
            figure=f"{of_rapidocr / of_a_page:.2f} times",
        ),
        _tesseract_row(pages, times),
        Row(
            what=f"median of a page alone: {alone:.2f} s; RapidOCR {rapidocr_alone:.2f} s",
            figure=f"{alone / rapidocr_alone:.2f}",
            bar=f"at most {MOST_MEDIAN}",
            is_met=alone / rapidocr_alone <= MOST_MEDIAN,
        ),
    ]


def _tesseract_row(pages: int, times: Times) -> Row:
    bar = f"at least {LEAST_OVER_TESSERACT:g}"
    if not times.tesseract:
        return Row(what="Tesseract", figure="not found on this machine", bar=bar)
    ratio = min(times.tesseract) / min(times.ours)
    return Row(
        what=f"pages/s of Tesseract, a process a core: {pages / min(times.tesseract):.2f}",
        figure=f"{ratio:.2f} times",
        bar=bar,
        is_met=ratio >= LEAST_OVER_TESSERACT,
    )


def memory_row(server: ServerProcess, pages: Sequence[bytes], count: int) -> Row:
    """Memory after the first tenth of `count` pages, and after all."""
    many = [pages[index % len(pages)] for index in range(count)]
    asyncio.run(read_by_callers(server.grpc, many[: count // 10]))
    first = memory_bytes(server.process.pid)
    asyncio.run(read_by_callers(server.grpc, many[count // 10 :]))
    growth = (last := memory_bytes(server.process.pid)) / first
    return Row(
        what=f"memory after {count // 10} pages {first / 2**20:.0f} MiB, after {count} {last / 2**20:.0f} MiB",
        figure=f"{growth:.3f}",
        bar=f"at most {MOST_GROWTH}",
        is_met=growth <= MOST_GROWTH,
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def tesseract_reads(pages: Sequence[bytes]) -> None:
    """Read the pages by Tesseract, a process of one thread on each core."""
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}

    def read(page: bytes) -> None:
        subprocess.run(_TESSERACT, input=page, env=environment, check=True, capture_output=True)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(read, pages))


async def read_by_callers(address: str, pages: Sequence[bytes]) -> list[str]:
    """The texts of the pages, read by several callers at once."""
    texts = [""] * len(pages)
    waiting = list(range(len(pages)))
    async with grpc.aio.insecure_channel(address) as channel:
        stub = documents_pb2_grpc.DocumentServiceStub(channel)

        async def call() -> None:
            while waiting:
                index = waiting.pop(0)
                async for event in stub.RecognizeDocument(documents_pb2.RecognizeDocumentRequest(content=pages[index])):
                    if event.HasField("page"):
                        texts[index] = event.page.text

        await asyncio.gather(*(call() for _ in range(CALLERS)))
    return texts


if __name__ == "__main__":
    sys.exit(main())
