"""Reads documents: pages, text on them, lines, order. Pages are handled side by side and answered in order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from inference_server.allocator import Reuse
from inference_server.errors import DeadlineExceeded, InvalidDocument, InvalidInput
from inference_server.scheduler.port import Caller, Device, Inference
from inference_server.storage.storage import Storage
from inference_server.tasks.documents.detection.detector import DetectionSettings
from inference_server.tasks.documents.images.quality import page_quality
from inference_server.tasks.documents.layout.key_fields import key_fields
from inference_server.tasks.documents.outputs.files import OutputFiles
from inference_server.tasks.documents.outputs.port import FileChunk, Original, OutputFormat
from inference_server.tasks.documents.page_time import PageTime
from inference_server.tasks.documents.pages import File, Pages, PicturePages, checked_dpi, checked_type, open_pages, selected_pages
from inference_server.tasks.documents.pdf.pages import PdfPages
from inference_server.tasks.documents.pdf.processes import PdfProcesses
from inference_server.tasks.documents.recognition.recogniser import RecognitionSettings
from inference_server.tasks.documents.tally import Tally
from inference_server.tasks.documents.text import TextModels, TextReader
from inference_server.tasks.documents.values import DocumentSummary, Limits, PageResult, TextLayer, TextMode, TextSource

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class DocumentRequest:
    """One document to read. Exactly one of `content` and `uri` is set."""

    # The file's bytes.
    content: bytes | None = None
    # A path or URL under the allowed roots.
    uri: str = ""
    # Names the run in the logs.
    request_id: str = ""
    # Dots per inch at which PDF pages are rendered; 0 for the default.
    dpi: int = 0
    # Of an encrypted PDF; kept out of what `repr` shows.
    password: str = field(default="", repr=False)
    # Page numbers from 1; empty for all.
    pages: tuple[int, ...] = ()
    # Where the text of PDF pages is taken from.
    text_mode: TextMode = TextMode.OCR
    # Files to make of the pages.
    formats: tuple[OutputFormat, ...] = ()


class DocumentReader:
    """Reads documents with a detector and a recogniser of the repository."""

    def __init__(
        self,
        inference: Inference,
        storage: Storage,
        models: Path,
        *,
        limits: Limits | None = None,
        detection: DetectionSettings | None = None,
        recognition: RecognitionSettings | None = None,
        detector: str = "ppocrv6_small_det",
        recognizer: str = "ppocrv6_small_rec",
        pages_ahead: int = 4,
        most_pages_at_once: int = 8,
        refused: Callable[[str], None] = lambda limit: None,
        memory: Reuse | None = None,
        processes: PdfProcesses | None = None,
    ) -> None:
        """`models`: the repository's folder, where the recogniser's characters lie. `refused`: told the limit that a page passed.

        `pages_ahead`: pages of one document in work at once; `most_pages_at_once`: of all documents together, which bounds the memory,
        and as many again that the CPU alone may read: those that a GPU keeps waiting hold none of them up.
        `memory`: the process' one. `processes`: those that read PDFs.
        """
        self._storage = storage
        self._limits = limits or Limits()
        self._text = TextReader(
            inference,
            TextModels(models=models, detector=detector, recognizer=recognizer),
            detection or DetectionSettings(),
            recognition or RecognitionSettings(),
        )
        self._pages_ahead = pages_ahead
        self._refused = refused
        self._turns = asyncio.Semaphore(most_pages_at_once)
        self._cpu_turns = asyncio.Semaphore(most_pages_at_once)
        self._memory = memory or Reuse()
        self.processes = processes or PdfProcesses()

    async def read(self, request: DocumentRequest, caller: Caller) -> AsyncGenerator[PageResult | FileChunk | DocumentSummary, None]:
        """Yield each page asked for, in order, after it what it adds to the files, then the summary. Close the generator to stop the work.

        A page that cannot be read is yielded with its error. Raises `InvalidDocument` when the document cannot be opened or none of its
        pages could be read, `DeadlineExceeded` when a page takes too long of a caller who allows one kind of device, `DeviceMissing`,
        `InvalidInput`, `AccessDenied`, `NotFound`, and what `Inference.infer` raises.
        """
        started = time.monotonic()
        self._text.check_device(caller)
        content = await self._content(request)
        until = started + self._limits.most_document_seconds
        pages = await self._open(content, request, until)
        tally = Tally()
        lay_over = pages.laid_over if isinstance(pages, PdfPages) else None
        original = Original(content=content, media_type=pages.media_type, lay_over=lay_over)
        files = OutputFiles(request.formats, original, until=until)
        try:
            numbers = selected_pages(request.pages, pages.page_count, self._limits)
            work = _Work(pages=pages, mode=request.text_mode, until=until)
            async with aclosing(self._in_order(work, numbers, caller, tally)) as results:
                async for result in results:
                    yield result
                    async with aclosing(files.page(result)) as chunks:
                        async for chunk in chunks:
                            yield chunk
            # Some pages alone may all be broken: whoever asks for the rest of a document, has the others already.
            if tally.failed == pages.page_count:
                raise tally.error()
            summary = tally.summary(pages, time.monotonic() - started)
            async with aclosing(files.end(summary)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            try:
                await asyncio.to_thread(files.close)
            finally:
                await pages.close()
        _log_read(request, summary, pages=len(numbers), words=tally.words)
        yield summary

    async def _content(self, request: DocumentRequest) -> bytes:
        checked_dpi(request.dpi, self._limits)
        if (request.content is None) == (not request.uri):
            raise InvalidInput("no document, or two, were given; expected either its bytes in `content` or its place in `document_uri`.")
        if request.content is not None:
            return request.content
        return await self._storage.read(request.uri, most_bytes=self._limits.most_bytes, limit="document_bytes")

    async def _open(self, content: bytes, request: DocumentRequest, until: float) -> PdfPages | PicturePages:
        limits = self._limits
        media_type = checked_type(content, limits)
        file = File(content=content, media_type=media_type, dpi=checked_dpi(request.dpi, limits), password=request.password)
        opening = self._time(self._turns, until)
        try:
            async with opening:
                return await open_pages(file, limits=limits, processes=self.processes, time=opening)
        except TimeoutError as late:
            if opening.is_waiting or time.monotonic() >= until:
                raise DeadlineExceeded(
                    f"the document was not opened within {limits.most_document_seconds:g} s; other PDFs may have kept it waiting. Try it "
                    "again, or raise INFERENCE_MAX_DOCUMENT_SECONDS.",
                    limit="document_seconds",
                ) from late
            raise InvalidDocument(
                f"the PDF was not opened within {limits.most_page_seconds:g} s: pdfium does not come to an end with it. Print it to a PDF "
                "anew, send its pages as images, or raise INFERENCE_MAX_PAGE_SECONDS.",
                limit="page_seconds",
            ) from late

    def _time(self, turns: asyncio.Semaphore, until: float) -> PageTime:
        return PageTime(turns, self._memory, seconds=self._limits.most_page_seconds, until=until)

    async def _in_order(self, work: _Work, numbers: tuple[int, ...], caller: Caller, tally: Tally) -> AsyncGenerator[PageResult, None]:
        waiting = deque(numbers)
        under_way: deque[asyncio.Task[PageResult]] = deque()
        try:
            while waiting or under_way:
                while waiting and len(under_way) < self._pages_ahead:
                    under_way.append(asyncio.create_task(self._page(work, waiting.popleft(), caller, tally)))
                result = await under_way[0]
                under_way.popleft()
                tally.count(result)
                yield result
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _page(self, work: _Work, number: int, caller: Caller, tally: Tally) -> PageResult:
        page_time = self._time(self._cpu_turns if caller.device is Device.CPU else self._turns, work.until)
        try:
            async with page_time:
                return await self._read_page(work, number, caller, tally, page_time)
        except TimeoutError as late:
            error = self._late(number, work)
            tally.kept_waiting += page_time.is_waiting
            if caller.device:
                # What a device does not read in time, another may, or the same when it has less to do.
                raise DeadlineExceeded(str(error)) from late
        except InvalidDocument as found:
            error = found
        if error.limit:
            self._refused(error.limit)
        return PageResult(page_number=number, page_count=work.pages.page_count, width=0, height=0, error=str(error))

    async def _read_page(self, work: _Work, number: int, caller: Caller, tally: Tally, page_time: PageTime) -> PageResult:
        result = PageResult(page_number=number, page_count=work.pages.page_count, width=0, height=0)
        page = await work.pages.read(number - 1, work.mode, page_time)
        if isinstance(page, TextLayer):
            layer = page
            fields = await asyncio.to_thread(key_fields, layer.lines)
            return replace(
                result,
                width=layer.width,
                height=layer.height,
                lines=layer.lines,
                source=TextSource.LAYER,
                rotation_degrees=layer.rotation_degrees,
                fields=fields,
            )
        reading = await self._text.read(page, caller)
        tally.models.update(dict.fromkeys(reading.models))
        quality = await asyncio.to_thread(page_quality, page, reading.lines)
        height, width = page.shape[:2]
        fields = await asyncio.to_thread(key_fields, reading.lines)
        return replace(
            result,
            width=width,
            height=height,
            lines=reading.lines,
            source=TextSource.OCR,
            rotation_degrees=reading.rotation_degrees,
            quality=quality,
            fields=fields,
        )

    def _late(self, number: int, work: _Work) -> InvalidDocument:
        if time.monotonic() >= work.until:
            seconds, whole = self._limits.most_document_seconds, "INFERENCE_MAX_DOCUMENT_SECONDS"
            return InvalidDocument(
                f"page {number} was not read: the {seconds:g} s of a document are used up. Name fewer in `pages`, or raise {whole}.",
                limit="document_seconds",
            )
        return InvalidDocument(
            f"page {number} was not read within {self._limits.most_page_seconds:g} s. Try it alone, or raise INFERENCE_MAX_PAGE_SECONDS.",
            limit="page_seconds",
        )


@dataclass(frozen=True, kw_only=True)
class _Work:
    """One document that is being read."""

    pages: Pages
    mode: TextMode
    # On the clock of `time.monotonic`.
    until: float


def _log_read(request: DocumentRequest, summary: DocumentSummary, *, pages: int, words: int) -> None:
    _log.info(
        "document_read",
        request_id=request.request_id,
        media_type=summary.media_type,
        pages=pages,
        failed_pages=summary.failed_pages,
        words=words,
        seconds=round(summary.duration_seconds, 3),
    )
