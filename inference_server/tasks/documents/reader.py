"""Reads documents: pages, text on them, lines, order. Pages are handled side by side and answered in order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from inference_server.allocator import KEPT_FOR_DOCUMENTS, Reuse
from inference_server.errors import DeadlineExceeded, InvalidDocument, InvalidInput
from inference_server.scheduler.port import Caller, Device, Inference
from inference_server.storage import Storage
from inference_server.tasks.documents.detection import DetectionSettings
from inference_server.tasks.documents.key_fields import key_fields
from inference_server.tasks.documents.outputs.files import OutputFiles
from inference_server.tasks.documents.outputs.port import FileChunk, Original, OutputFormat
from inference_server.tasks.documents.pages import Pages, checked_dpi, checked_type, open_checked, selected_pages, text_layer_of
from inference_server.tasks.documents.quality import page_quality
from inference_server.tasks.documents.recognition import RecognitionSettings
from inference_server.tasks.documents.running import in_thread_of, opened
from inference_server.tasks.documents.text import TextModels, TextReader
from inference_server.tasks.documents.turns import Turns
from inference_server.tasks.documents.values import DocumentSummary, Limits, PageResult, TextMode, TextSource

_log = structlog.get_logger()
# After so long a document is left to be closed when its turn comes.
_CLOSING_SECONDS = 5.0


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
    ) -> None:
        """`models`: the repository's folder, where the recogniser's characters lie. `refused`: told the limit that a page passed.

        `pages_ahead`: pages of one document in work at once; `most_pages_at_once`: of all documents together, which bounds the memory,
        and as many again that the CPU alone may read: those that a GPU keeps waiting hold none of them up.
        `memory`: the process' one.
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
        self._turns = Turns(most_pages_at_once)
        self._cpu_turns = Turns(most_pages_at_once)
        self._memory = memory or Reuse()

    async def read(self, request: DocumentRequest, caller: Caller) -> AsyncGenerator[PageResult | FileChunk | DocumentSummary, None]:
        """Yield each page asked for, in order, after it what it adds to the files, then the summary. Close the generator to stop the work.

        A page that cannot be read is yielded with its error. Raises `InvalidDocument` when the document cannot be opened or none of its
        pages could be read, `DeadlineExceeded` when a page takes too long of a caller who allows one kind of device, `DeviceMissing`,
        `InvalidInput`, `AccessDenied`, `NotFound`, and what `Inference.infer` raises.
        """
        started = time.monotonic()
        self._text.check_device(caller)
        content = await self._content(request)
        pages = await self._open(content, request)
        tally = _Tally()
        until = started + self._limits.most_document_seconds
        original = Original(content=content, media_type=pages.media_type, password=request.password)
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
                raise InvalidDocument(tally.first_error)
            summary = tally.summary(pages, time.monotonic() - started)
            async with aclosing(files.end(summary)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            await _closed(files, pages)
        _log_read(request, summary, pages=len(numbers), words=tally.words)
        yield summary

    async def _content(self, request: DocumentRequest) -> bytes:
        checked_dpi(request.dpi, self._limits)
        if (request.content is None) == (not request.uri):
            raise InvalidInput("no document, or two, were given; expected either its bytes in `content` or its place in `document_uri`.")
        if request.content is not None:
            return request.content
        return await self._storage.read(request.uri, most_bytes=self._limits.most_bytes, limit="document_bytes")

    async def _open(self, content: bytes, request: DocumentRequest) -> Pages:
        limits, seconds = self._limits, self._limits.most_document_seconds
        try:
            async with asyncio.timeout(seconds):
                media_type = await asyncio.to_thread(checked_type, content, limits)
                dpi = checked_dpi(request.dpi, limits)
                opening = partial(open_checked, content, media_type, limits=limits, dpi=dpi, password=request.password)
                return await opened(media_type, opening)
        except TimeoutError as late:
            raise DeadlineExceeded(
                f"the document was not opened within {seconds:g} s; other PDFs may have kept it waiting. Try it again, or raise "
                "INFERENCE_MAX_DOCUMENT_SECONDS.",
                limit="document_seconds",
            ) from late

    async def _in_order(self, work: _Work, numbers: tuple[int, ...], caller: Caller, tally: _Tally) -> AsyncGenerator[PageResult, None]:
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

    async def _page(self, work: _Work, number: int, caller: Caller, tally: _Tally) -> PageResult:
        turns = self._cpu_turns if caller.device is Device.CPU else self._turns
        async with turns.turn(work.pages.media_type) as drawn, self._memory.reused(KEPT_FOR_DOCUMENTS):
            seconds = min(self._limits.most_page_seconds, work.until - time.monotonic())
            try:
                async with asyncio.timeout(seconds):
                    return await self._read_page(work, number, caller, tally, drawn)
            except TimeoutError as late:
                error = self._late(number, work)
                if caller.device:
                    # What a device does not read in time, another may, or the same when it has less to do.
                    raise DeadlineExceeded(str(error)) from late
            except InvalidDocument as found:
                error = found
        if error.limit:
            self._refused(error.limit)
        return PageResult(page_number=number, page_count=work.pages.page_count, width=0, height=0, error=str(error))

    async def _read_page(self, work: _Work, number: int, caller: Caller, tally: _Tally, drawn: Callable[[], Awaitable[None]]) -> PageResult:
        result = PageResult(page_number=number, page_count=work.pages.page_count, width=0, height=0)
        layer = await in_thread_of(work.pages.media_type, text_layer_of, work.pages, number - 1, work.mode)
        if layer is not None:
            await drawn()
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
        page = await in_thread_of(work.pages.media_type, work.pages.page, number - 1)
        await drawn()
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


async def _closed(files: OutputFiles, pages: Pages) -> None:
    """Both closed; where the thread is held by a page that takes for ever, they are when it is free."""
    closing = asyncio.ensure_future(in_thread_of(pages.media_type, _close, files, pages))
    if (await asyncio.wait((closing,), timeout=_CLOSING_SECONDS))[0]:
        closing.result()


def _close(files: OutputFiles, pages: Pages) -> None:
    files.close()
    pages.close()


class _Tally:
    """What a document's pages add up to."""

    def __init__(self) -> None:
        self.failed = 0
        self.words = 0
        self.first_error = ""
        # In the order of their first use.
        self.models: dict[str, None] = {}
        self._confidence = 0.0

    def count(self, page: PageResult) -> None:
        if page.error:
            self.failed += 1
            self.first_error = self.first_error or page.error
        confidences = [word.confidence for line in page.lines for word in line.words]
        self.words += len(confidences)
        self._confidence += float(np.sum(confidences))

    def summary(self, pages: Pages, seconds: float) -> DocumentSummary:
        return DocumentSummary(
            page_count=pages.page_count,
            failed_pages=self.failed,
            media_type=pages.media_type,
            mean_confidence=self._confidence / self.words if self.words else 0.0,
            models=tuple(self.models),
            duration_seconds=seconds,
        )
