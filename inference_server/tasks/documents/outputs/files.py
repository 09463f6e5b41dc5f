"""The files that a caller asked for, in pieces."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.outputs.alto import alto_writer
from inference_server.tasks.documents.outputs.hocr import hocr_writer
from inference_server.tasks.documents.outputs.plain import TextWriter
from inference_server.tasks.documents.outputs.port import FileChunk, Original, OutputFormat, Writer
from inference_server.tasks.documents.outputs.searchable import PdfTextWriter, searchable_writer
from inference_server.tasks.documents.outputs.structured import JsonWriter
from inference_server.tasks.documents.outputs.tsv import TsvWriter
from inference_server.tasks.documents.values import DocumentSummary, PageResult

T = TypeVar("T")

# A piece is this long at most, far below what a message may have.
_PIECE_BYTES = 1024 * 1024
# A piece may take so long where the time of its document is used up: what was read in it is still to be written.
_LEAST_SECONDS = 30.0

_MEDIA_TYPES: Mapping[OutputFormat, str] = {
    OutputFormat.JSON: "application/json",
    OutputFormat.TEXT: "text/plain; charset=utf-8",
    OutputFormat.HOCR: "application/xhtml+xml",
    OutputFormat.ALTO: "application/xml",
    OutputFormat.TSV: "text/tab-separated-values; charset=utf-8",
    OutputFormat.SEARCHABLE_PDF: "application/pdf",
}
_WRITERS: Mapping[OutputFormat, Callable[[Original], Writer]] = {
    OutputFormat.JSON: lambda original: JsonWriter(),
    OutputFormat.TEXT: lambda original: TextWriter(),
    OutputFormat.HOCR: lambda original: hocr_writer(),
    OutputFormat.ALTO: lambda original: alto_writer(),
    OutputFormat.TSV: lambda original: TsvWriter(),
    OutputFormat.SEARCHABLE_PDF: searchable_writer,
}


class OutputFiles:
    """Writes the files asked for, none of which is ever whole in memory."""

    def __init__(self, formats: Sequence[OutputFormat], original: Original, *, until: float = math.inf) -> None:
        """Each format once, in the order asked for. `until`: the end of the document's time, on the clock of `time.monotonic`."""
        self._files = [_File(kind, original, until) for kind in dict.fromkeys(formats)]

    async def page(self, page: PageResult) -> AsyncGenerator[FileChunk, None]:
        """What a page adds to each file."""
        for file in self._files:
            async for chunk in file.chunks(lambda writer: writer.page(page)):
                yield chunk

    async def end(self, summary: DocumentSummary) -> AsyncGenerator[FileChunk, None]:
        """What ends each file."""
        for file in self._files:
            async for chunk in file.chunks(lambda writer: writer.end(summary), last=True):
                yield chunk

    def close(self) -> None:
        """Free what the writers hold; blocks."""
        for file in self._files:
            file.close()


class _File:
    """One file: its writer, and how long it is."""

    def __init__(self, kind: OutputFormat, original: Original, until: float) -> None:
        self._kind = kind
        self._until = until
        self._original = original
        # Made in a thread where it reads the document.
        self._writer: Writer | None = None
        if kind is OutputFormat.SEARCHABLE_PDF and original.lay_over:
            self._writer = PdfTextWriter(original.lay_over)
        self._length = 0
        # A caller that went away leaves a thread behind that still writes.
        self._lock = threading.Lock()
        self._closed = False
        self._failed = False

    async def chunks(self, write: Callable[[Writer], Iterable[bytes]], *, last: bool = False) -> AsyncGenerator[FileChunk, None]:
        if self._failed:
            return
        pieces = _even(self._written(write))
        try:
            if last and isinstance(self._writer, PdfTextWriter):
                await self._in_time(self._writer.prepare())
            while (piece := await self._in_time(asyncio.to_thread(self._next, pieces))) is not None:
                yield self._chunk(piece)
        except InvalidDocument as error:
            # Neither the pages nor the other files are to suffer.
            self._failed = True
            yield self._chunk(b"", last=True, error=str(error))
            return
        except OSError as error:
            # What grows beyond some megabytes goes to the disk.
            self._failed = True
            told = (
                f"the file was not written: the server has no room for it on its disk ({error.strerror}). Free some, or name a folder that "
                "it may write in TMPDIR."
            )
            yield self._chunk(b"", last=True, error=told)
            return
        if last:
            yield self._chunk(b"", last=True)

    async def _in_time(self, work: Awaitable[T]) -> T:
        seconds = max(self._until - time.monotonic(), _LEAST_SECONDS)
        try:
            async with asyncio.timeout(seconds if math.isfinite(seconds) else None):
                return await work
        except TimeoutError as late:
            raise InvalidDocument(
                "the file was not written in the time of its document; other PDFs may have kept it waiting. Name fewer in `pages`, or "
                "raise INFERENCE_MAX_DOCUMENT_SECONDS."
            ) from late

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._writer:
                self._writer.close()

    def _written(self, write: Callable[[Writer], Iterable[bytes]]) -> Iterator[bytes]:
        """What is written, all of it while it is iterated."""
        if self._writer is None:
            self._writer = _WRITERS[self._kind](self._original)
        yield from write(self._writer)

    def _next(self, pieces: Iterator[bytes]) -> bytes | None:
        with self._lock:
            if self._closed:
                raise InvalidDocument("the document was closed while it was written.")
            return next(pieces, None)

    def _chunk(self, data: bytes, *, last: bool = False, error: str = "") -> FileChunk:
        name, media_type = f"document.{self._kind}", _MEDIA_TYPES[self._kind]
        chunk = FileChunk(name=name, media_type=media_type, offset=self._length, data=data, last=last, error=error)
        self._length += len(data)
        return chunk


def _even(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that are worth a message each, and none too long for one."""
    held = bytearray()
    for piece in pieces:
        for start in range(0, len(piece), _PIECE_BYTES):
            held += piece[start : start + _PIECE_BYTES]
            if len(held) >= _PIECE_BYTES:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)
