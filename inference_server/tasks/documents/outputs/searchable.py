"""Searchable PDFs: the original pages, with their text invisible above them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from inference_server.tasks.documents.outputs.image_pdf import ImagePdfWriter
from inference_server.tasks.documents.outputs.port import LayOver, Original, Writer
from inference_server.tasks.documents.pdf.packing import packed_page
from inference_server.tasks.documents.spooled import spooled_file
from inference_server.tasks.documents.values import DocumentSummary, PageResult, TextSource

_READ_BYTES = 1024 * 1024


def searchable_writer(original: Original) -> Writer:
    """A PDF stays as it is, with a layer added; images become pages that hold them as they are."""
    if original.lay_over:
        return PdfTextWriter(original.lay_over)
    return ImagePdfWriter(original)


class PdfTextWriter:
    """Gathers the text of the pages that were read from their pictures; it is laid over them when all of them are there."""

    def __init__(self, lay_over: LayOver) -> None:
        self._lay_over = lay_over
        self._pages = spooled_file()
        self._file: BinaryIO | None = None

    def page(self, page: PageResult) -> Iterable[bytes]:
        """Nothing to send yet."""
        if page.source is TextSource.OCR and page.lines:
            self._pages.write(packed_page(page))
        return []

    async def prepare(self) -> None:
        """Have the file made, before its end is written. Raises `InvalidDocument` and `Unavailable`."""
        self._file = await self._lay_over(self._pages, self._pages.tell())

    def end(self, summary: DocumentSummary) -> Iterator[bytes]:
        """The whole file."""
        while self._file and (piece := self._file.read(_READ_BYTES)):
            yield piece

    def close(self) -> None:
        """Free what it holds."""
        self._pages.close()
        if self._file:
            self._file.close()
