"""Programs that read documents, timed by turns: Lamina through gRPC, RapidOCR in its own loop, Tesseract with a process a core."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc.aio
from lamina.v1 import documents_pb2, documents_pb2_grpc
from rapidocr import RapidOCR

from benchmarks.support.process_tree import cpu_seconds

CALLERS = 4
# How often a turn of ours and of Tesseract's reads its pages, so that they keep all cores busy to the end.
_REPEATS, _TESSERACT_REPEATS = 4, 2
_TESSERACT = ("tesseract", "-", "-", "--psm", "1")


@dataclass(kw_only=True)
class Times:
    """What one program took for a page, turn by turn."""

    # Seconds of a page among many, and of processor time.
    page: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    # Seconds of one page alone.
    alone: list[float] = field(default_factory=list)

    def turn(self, read: Callable[[Sequence[bytes]], object], pages: Sequence[bytes], processor: Callable[[], float]) -> None:
        """Time the reading of some pages; `processor` tells the processor time that the program has used so far."""
        begun, used = time.perf_counter(), processor()
        read(pages)
        self.page.append((time.perf_counter() - begun) / len(pages))
        self.processor.append((processor() - used) / len(pages))


@dataclass(frozen=True, kw_only=True)
class Programs:
    """The times of each program; none of Tesseract where it is not on the machine."""

    ours: Times = field(default_factory=Times)
    rapidocr: Times = field(default_factory=Times)
    tesseract: Times = field(default_factory=Times)


def measured(address: str, pid: int, rapidocr: RapidOCR, turns: Sequence[Sequence[bytes]]) -> Programs:
    """Have the programs read by turns, the same pages in each turn. `address` and `pid`: of the server."""
    times = Programs()
    has_tesseract = shutil.which(_TESSERACT[0]) is not None

    def ours(pages: Sequence[bytes]) -> None:
        asyncio.run(read_by_callers(address, pages))

    def in_a_loop(pages: Sequence[bytes]) -> None:
        for page in pages:
            begun = time.perf_counter()
            rapidocr(page)
            times.rapidocr.alone.append(time.perf_counter() - begun)

    # Its first pages take it longer, as they do us.
    for page in turns[0]:
        rapidocr(page)
    ours(turns[0])
    for pages in turns:
        times.ours.turn(ours, [*pages] * _REPEATS, lambda: cpu_seconds(pid))
        if has_tesseract:
            times.tesseract.turn(tesseract_reads, [*pages] * _TESSERACT_REPEATS, _ended_children_seconds)
        times.rapidocr.turn(in_a_loop, pages, time.process_time)
        for page in pages:
            begun = time.perf_counter()
            ours([page])
            times.ours.alone.append(time.perf_counter() - begun)
    return times


def _ended_children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
