"""How fast and how well are documents read through gRPC, beside RapidOCR with the same models, and Tesseract where it is found?

- Pages per second of four callers on all cores over those of RapidOCR's own loop. Bar: 4.
- The same over Tesseract's with a process a core. Bar: 1. Without Tesseract it is not measured, which `--check` fails unless
  `--without-tesseract` says so.
- Median time of one page alone over RapidOCR's. Bar: 0.5.
- Processor time of a page, of each of them: what other work on the machine disturbs least.

The programs read by turns, a few pages each, and the median of the turns' ratios counts: other work on the machine, and its own
changes of speed, meet them all.

- Memory of `inference-server serve --services documents`, with its processes for PDFs, while the last tenth of many pages is read, every
  second one in a PDF, over that of the second tenth: medians, since from page to page it differs by some percent, and while the first is
  read the engines still meet new shapes. Bar: 1.05.
- Character error rate in reading order and F1 of the words, by kind of page, of Lamina and of RapidOCR.

The pages are rendered and worn (`tests/support/documents/composed_pages.py`, `worn_pages.py`).

Run: python benchmarks/documents.py [--check] [--parts accuracy,speed,memory] [--pages 2000] [--rounds 3] [--without-tesseract]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import os
import statistics
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from rapidocr import RapidOCR
from rich.console import Console
from rich.table import Table

from benchmarks.support.choices import some_of
from benchmarks.support.documents.readers import CALLERS, Programs, Times, measured, read_by_callers
from benchmarks.support.documents.server import document_server
from benchmarks.support.process_tree import memory_bytes
from inference_server.tasks.documents.evaluation import PageFigures, page_figures
from tests.support.documents.composed_pages import PAIRED_STYLES, ComposedPage, cells_form, columns, form, lab_report, paired_form, receipt
from tests.support.documents.worn_pages import Wear, scanned
from tests.support.inference_server.server_process import ServerProcess

LEAST_OVER_RAPIDOCR, LEAST_OVER_TESSERACT = 4.0, 1.0
MOST_MEDIAN, MOST_GROWTH = 0.5, 1.05


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


# A page's width as a share of its height.
_OF_WIDTH = 595 / 842

KINDS = (
    Kind(name="forms", compose=form, wear=Wear(dpi=100, noise=8, jpeg=60), least_f1=0.9),
    Kind(name="forms, blurred", compose=form, wear=Wear(dpi=100, blur=1.0, noise=10, jpeg=40), least_f1=0.9),
    Kind(name="forms of an archive", compose=form, wear=Wear(dpi=98, archive_dpi=200), least_f1=0.9),
    Kind(name="the same, speckled", compose=form, wear=Wear(dpi=92, archive_dpi=200, specks=3600), least_f1=0.9),
    Kind(name="forms, a letter a cell", compose=cells_form, wear=Wear(dpi=100, noise=8, jpeg=60), least_f1=0.9),
    Kind(name="receipts", compose=receipt, wear=Wear(dpi=150, noise=8, jpeg=60), least_f1=0.95),
    Kind(name="lab reports", compose=lab_report, wear=Wear(dpi=150), most_errors=0.02),
    Kind(name="lab reports at 90 dpi", compose=lab_report, wear=Wear(dpi=90, blur=0.5, noise=8, jpeg=60), most_errors=0.02),
    Kind(name="two columns", compose=columns, wear=Wear(dpi=150), most_errors=0.02),
    Kind(name="three columns", compose=lambda seed: columns(seed, 3), wear=Wear(dpi=150), most_errors=0.02),
    Kind(name="turned by 90°", compose=lab_report, wear=Wear(dpi=150, quarter_turns=1), most_errors=0.05),
    Kind(name="turned by 180°", compose=lab_report, wear=Wear(dpi=150, quarter_turns=2), most_errors=0.05),
    Kind(name="askew by 3°", compose=columns, wear=Wear(dpi=150, skew_degrees=3), most_errors=0.05),
    Kind(name="askew by 14°", compose=lab_report, wear=Wear(dpi=150, skew_degrees=-14), most_errors=0.05),
    Kind(name="curved by 2 %", compose=lab_report, wear=Wear(dpi=150, curve=0.02), most_errors=0.05),
    Kind(name="columns, bent by 4 %", compose=columns, wear=Wear(dpi=150, curve=_OF_WIDTH * 0.04, shape="wave"), most_errors=0.05),
    Kind(name="forms, bent by 6 %", compose=form, wear=Wear(dpi=150, curve=_OF_WIDTH * 0.06, shape="book"), least_f1=0.9),
    Kind(name="seen from the side", compose=lab_report, wear=Wear(dpi=150, aside=0.1), most_errors=0.05),
    Kind(name="pairs in two columns", compose=lambda seed: paired_form(seed, PAIRED_STYLES[0]), wear=Wear(dpi=150), most_errors=0.02),
    Kind(
        name="the same by 90°",
        compose=lambda seed: paired_form(seed, PAIRED_STYLES[1]),
        wear=Wear(dpi=150, quarter_turns=1),
        most_errors=0.05,
    ),
)
PARTS = ("accuracy", "speed", "memory")
# What speed is measured on.
_TIMED = ("forms", "receipts", "lab reports")
# What memory is watched over: short pages, scanned in as many sizes.
_SHORT, _SHORT_DPI = "receipts", range(100, 200, 2)
_LOOKS = 100


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure."""

    what: str
    figure: str
    bar: str = ""
    is_met: bool = True
    is_measured: bool = True

    @property
    def verdict(self) -> str:
        """Of its bar."""
        if not self.is_measured:
            return "not measured"
        return ("met" if self.is_met else "MISSED") if self.bar else ""


def main() -> int:
    """Print the figures; 1 when `--check` was given and a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--parts", type=some_of(PARTS), default=PARTS, help="what is measured")
    parser.add_argument("--pages", type=int, default=2000, help="pages over which memory is watched")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each program on each of its pages")
    parser.add_argument("--of-a-kind", type=int, default=3, help="pages of each kind")
    parser.add_argument("--without-tesseract", action="store_true", help="do without the comparison with Tesseract")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with document_server() as server:
        print("engines:", ", ".join(f"{entry['model']} {entry['engine']}" for entry in server.events() if entry["event"] == "model_ready"))
        rows = measured_rows(server, options.parts, options)
    return int(options.check and not all(row.is_met for row in rows))


def measured_rows(server: ServerProcess, parts: Collection[str], options: argparse.Namespace) -> list[Row]:
    """The figures of the parts, each table shown as soon as it is there."""
    rapidocr = RapidOCR()
    turns = [[content_of(kind, seed) for kind in KINDS if kind.name in _TIMED] for seed in range(options.of_a_kind)]
    rows: list[Row] = []
    if "accuracy" in parts:
        rows += accuracy_rows(server, rapidocr, options.of_a_kind)
        show("How well they are read: CER in reading order, F1 of words; RapidOCR's in brackets", rows)
    if "speed" in parts:
        speed = speed_rows(
            measured(server.grpc, server.process.pid, rapidocr, turns * options.rounds), without_tesseract=options.without_tesseract
        )
        show("How fast documents are read", speed)
        rows += speed
    if "memory" in parts:
        kinds = [replace(kind, wear=replace(kind.wear, dpi=dpi)) for kind in KINDS if kind.name == _SHORT for dpi in _SHORT_DPI]
        short = [make(kind, seed) for seed, kind in enumerate(kinds) for make in (content_of, pdf_of)]
        memory = [memory_row(server, short, options.pages)]
        show("Memory of the server and its processes for PDFs", memory)
        rows += memory
    return rows


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table."""
    table = Table("what", "measured", "bar", "", title=f"{title}; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for row in rows:
        table.add_row(row.what, row.figure, row.bar, row.verdict)
    Console(width=140).print(table)


def content_of(kind: Kind, seed: int) -> bytes:
    """A page's file: JPEG where the wear has one, else PNG."""
    out = io.BytesIO()
    image = scanned(kind.compose(seed), kind.wear, seed)
    image.save(out, "JPEG" if kind.wear.jpeg else "PNG", **({"quality": 90} if kind.wear.jpeg else {}))
    return out.getvalue()


def pdf_of(kind: Kind, seed: int) -> bytes:
    """The same page in a PDF."""
    out = io.BytesIO()
    scanned(kind.compose(seed), kind.wear, seed).save(out, "PDF", resolution=kind.wear.dpi)
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


def speed_rows(times: Programs, *, without_tesseract: bool) -> list[Row]:
    """Pages per second, the processor's part in them, and the time of one page alone."""
    median = statistics.median
    ours, rapidocr, tesseract = times.ours, times.rapidocr, times.tesseract
    rows = [
        _throughput_row("RapidOCR", ours, rapidocr, LEAST_OVER_RAPIDOCR),
        _alone_row(ours, rapidocr),
        Row(
            what=f"processor time of a page: {median(ours.processor):.2f} s; RapidOCR {median(rapidocr.processor):.2f} s",
            figure=f"{median(rapidocr.processor) / median(ours.processor):.2f} times",
        ),
    ]
    if without_tesseract:
        return rows
    if not tesseract.page:
        what = "pages/s beside Tesseract, which is not on this machine (--without-tesseract does without it)"
        return [*rows, Row(what=what, figure="-", bar=f"at least {LEAST_OVER_TESSERACT:g}", is_met=False, is_measured=False)]
    return [
        *rows,
        _throughput_row("Tesseract, a process a core", ours, tesseract, LEAST_OVER_TESSERACT),
        Row(
            what=f"processor time of a page: {median(ours.processor):.2f} s; Tesseract {median(tesseract.processor):.2f} s",
            figure=f"{median(tesseract.processor) / median(ours.processor):.2f} times",
        ),
    ]


def _throughput_row(name: str, ours: Times, theirs: Times, least: float) -> Row:
    our_seconds, their_seconds = statistics.median(ours.page), statistics.median(theirs.page)
    ratios = sorted(other / own for own, other in zip(ours.page, theirs.page, strict=True))
    ratio = statistics.median(ratios)
    return Row(
        what=f"pages/s of {CALLERS} callers: {1 / our_seconds:.2f}; {name} {1 / their_seconds:.2f}",
        figure=f"{ratio:.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        bar=f"at least {least:g}",
        is_met=ratio >= least,
    )


def _alone_row(ours: Times, rapidocr: Times) -> Row:
    alone, rapidocr_alone = statistics.median(ours.alone), statistics.median(rapidocr.alone)
    return Row(
        what=f"median of a page alone: {alone:.2f} s; RapidOCR {rapidocr_alone:.2f} s",
        figure=f"{alone / rapidocr_alone:.2f}",
        bar=f"at most {MOST_MEDIAN}",
        is_met=alone / rapidocr_alone <= MOST_MEDIAN,
    )


def memory_row(server: ServerProcess, pages: Sequence[bytes], count: int) -> Row:
    """Memory over `count` pages, looked at a hundred times."""
    held = []
    for start in range(0, count, portion := max(count // _LOOKS, CALLERS)):
        asyncio.run(read_by_callers(server.grpc, [pages[index % len(pages)] for index in range(start, start + portion)]))
        held.append(memory_bytes(server.process.pid) / 2**20)
    tenth = max(len(held) // 10, 1)
    first, second, last = (statistics.median(some) for some in (held[:tenth], held[tenth : 2 * tenth] or held, held[-tenth:]))
    return Row(
        what=f"MiB by tenths of {count} pages: first {first:.0f}, second {second:.0f}, last {last:.0f}; at most {max(held):.0f}",
        figure=f"{last / second:.3f}",
        bar=f"at most {MOST_GROWTH}",
        is_met=last / second <= MOST_GROWTH,
    )


if __name__ == "__main__":
    sys.exit(main())
