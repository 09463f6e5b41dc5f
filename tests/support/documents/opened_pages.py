"""Documents opened as the server opens them, for tests that wait: PDFs by real processes, which are kept for the next test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from inference_server.allocator import Reuse
from inference_server.tasks.documents.outputs.port import Original
from inference_server.tasks.documents.outputs.searchable import PdfTextWriter, searchable_writer
from inference_server.tasks.documents.page_time import PageTime
from inference_server.tasks.documents.pages import File, checked_dpi, checked_type, open_pages
from inference_server.tasks.documents.pdf.pages import PdfPages
from inference_server.tasks.documents.pdf.processes import PdfProcesses
from inference_server.tasks.documents.values import Limits, Page, PageResult, TextLayer, TextMode
from tests.support.documents.read_pages import SUMMARY
from tests.support.patience import PATIENCE_SECONDS

T = TypeVar("T")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def done(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine comes to, on a loop that all tests share."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(2 * PATIENCE_SECONDS)


@cache
def _processes() -> PdfProcesses:
    return PdfProcesses()


def page_time(seconds: float = PATIENCE_SECONDS) -> PageTime:
    """Of one page, for which nothing else waits."""
    return PageTime(asyncio.Semaphore(1), Reuse(), seconds=seconds, until=time.monotonic() + PATIENCE_SECONDS)


@dataclass(frozen=True)
class Opened:
    """A document that is open."""

    pages: Any

    @property
    def media_type(self) -> str:
        return str(self.pages.media_type)

    @property
    def page_count(self) -> int:
        return int(self.pages.page_count)

    def read(self, index: int, mode: TextMode) -> Page | TextLayer:
        return done(self._read(index, mode))

    def page(self, index: int) -> Page:
        page = self.read(index, TextMode.OCR)
        assert not isinstance(page, TextLayer)
        return page

    def text_layer(self, index: int) -> TextLayer:
        layer = self.read(index, TextMode.LAYER)
        assert isinstance(layer, TextLayer)
        return layer

    def close(self) -> None:
        done(self.pages.close())

    async def _read(self, index: int, mode: TextMode) -> Page | TextLayer:
        async with page_time() as time:
            return await self.pages.read(index, mode, time)


def opened(
    content: bytes, *, limits: Limits | None = None, dpi: int = 0, password: str = "", processes: PdfProcesses | None = None
) -> Opened:
    limits = limits or Limits()
    dpi = checked_dpi(dpi, limits)
    file = File(content=content, media_type=checked_type(content, limits), dpi=dpi, password=password)

    async def open_file() -> Any:
        async with page_time() as time:
            return await open_pages(file, limits=limits, processes=processes or _processes(), time=time)

    return Opened(done(open_file()))


def overlaid(content: bytes, *pages: PageResult, password: str = "") -> bytes:
    """A PDF with the text of pages over it."""
    document = opened(content, password=password)
    assert isinstance(document.pages, PdfPages)
    writer = searchable_writer(Original(content=content, media_type=document.media_type, lay_over=document.pages.laid_over))
    try:
        return b"".join(_pieces(writer, pages))
    finally:
        writer.close()
        document.close()


def _pieces(writer: Any, pages: Iterable[PageResult]) -> Iterable[bytes]:
    assert isinstance(writer, PdfTextWriter)
    for page in pages:
        yield from writer.page(page)
    done(writer.prepare())
    yield from writer.end(SUMMARY)
