"""Pages of PDF files, rendered by pdfium."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pypdfium2
from pypdfium2 import raw

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pdf.expansion import check_expansion
from inference_server.tasks.documents.pdf.inflation import check_inflation
from inference_server.tasks.documents.pdf.layer import read_layer
from inference_server.tasks.documents.pdf.library import PDFIUM, POINTS_PER_INCH, open_pdf
from inference_server.tasks.documents.values import Limits, Page, TextLayer

_COLOURS = 3


def check_pdf(content: bytes, limits: Limits) -> None:
    """Raise `InvalidDocument` where pdfium would take too much memory or time for a file; blocks, and leaves pdfium alone.

    Raises `TimeoutError` where that is not told within a document's time: who waited may have gone.
    """
    most_bytes, until = limits.most_pdf_stream_bytes, time.monotonic() + limits.most_document_seconds
    check_inflation(content, most_bytes=most_bytes, most_image_bytes=_COLOURS * limits.most_page_pixels, until=until)
    check_expansion(content, most_bytes=most_bytes, until=until)


class PdfPages:
    """A PDF whose pages are rendered one at a time."""

    media_type = "application/pdf"

    def __init__(self, content: bytes, *, dpi: int, password: str, limits: Limits) -> None:
        """Of a file that `check_pdf` let pass. `dpi`: dots per inch. Raises `InvalidDocument` when the file is broken or encrypted."""
        self._dpi = dpi
        self._limits = limits
        self._closed = False
        with PDFIUM:
            self._document = open_pdf(content, password)
            # Values that were typed into a form are drawn by the form environment only.
            with suppress(pypdfium2.PdfiumError):
                self._document.init_forms()
            self.page_count = len(self._document)

    def page(self, index: int) -> Page:
        """Render the page at `index`, from 0."""
        with self._loaded(index) as page:
            size = self._pixels(index + 1, page)
            self._check_pixels(index + 1, size)
            try:
                return self._rendered(index + 1, page, size)
            except (pypdfium2.PdfiumError, ValueError) as error:
                raise InvalidDocument(f"page {index + 1} cannot be rendered; the file is damaged there.") from error

    def text_layer(self, index: int) -> TextLayer:
        """What the file itself says the page at `index` holds."""
        with self._loaded(index) as page:
            try:
                return read_layer(page, *self._pixels(index + 1, page))
            except (pypdfium2.PdfiumError, ValueError) as error:
                raise InvalidDocument(f"the text of page {index + 1} cannot be read; the file is damaged there.") from error

    def close(self) -> None:
        """Free the document."""
        with PDFIUM:
            self._closed = True
            self._document.close()

    @contextmanager
    def _loaded(self, index: int) -> Iterator[pypdfium2.PdfPage]:
        with PDFIUM:
            if self._closed:
                # A caller that went away leaves threads behind that waited for their turn.
                raise InvalidDocument("the document was closed while it was read.")
            try:
                page = self._document[index]
            except pypdfium2.PdfiumError as error:
                raise InvalidDocument(f"page {index + 1} is broken: its description cannot be read.") from error
            try:
                yield page
            finally:
                page.close()

    def _rendered(self, number: int, page: pypdfium2.PdfPage, size: tuple[int, int]) -> Page:
        """Draw a page in steps, so that one that takes for ever keeps the others waiting only for as long as a page may take."""
        bitmap = pypdfium2.PdfBitmap.new_native(*size, raw.FPDFBitmap_BGR)
        try:
            bitmap.fill_rect((255, 255, 255, 255), 0, 0, *size)
            place = (0, 0, *size, 0, raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER)
            pause = _deadline(self._limits.most_page_seconds)
            try:
                state = raw.FPDF_RenderPageBitmap_Start(bitmap.raw, page.raw, *place, ctypes.byref(pause))
            finally:
                raw.FPDF_RenderPage_Close(page.raw)
            if state == raw.FPDF_RENDER_TOBECONTINUED:
                raise InvalidDocument(
                    f"page {number} was not drawn within {self._limits.most_page_seconds:g} s. Ask for a lower dpi, or simplify the page.",
                    limit="page_seconds",
                )
            if page.formenv:
                raw.FPDF_FFLDraw(page.formenv.raw, bitmap.raw, page.raw, *place)
            # A copy: the bitmap's memory is pdfium's.
            return np.array(bitmap.to_numpy()[:, :, :3], copy=True)
        finally:
            bitmap.close()

    def _pixels(self, number: int, page: pypdfium2.PdfPage) -> tuple[int, int]:
        width, height = page.get_width(), page.get_height()
        if not (width > 0 and height > 0 and math.isfinite(width * height)):
            raise InvalidDocument(f"page {number} has no area ({width} × {height} points).")
        scale = self._dpi / POINTS_PER_INCH
        return math.ceil(width * scale), math.ceil(height * scale)

    def _check_pixels(self, number: int, size: tuple[int, int]) -> None:
        width, height = size
        if width * height > self._limits.most_page_pixels:
            fitting = int(self._dpi * math.sqrt(self._limits.most_page_pixels / (width * height)))
            is_smaller = fitting >= self._limits.lowest_dpi
            raise InvalidDocument(
                f"page {number} would have {width} × {height} pixels at {self._dpi} dpi; at most {self._limits.most_page_pixels} "
                f"pixels are accepted. {f'Ask for a dpi of at most {fitting}' if is_smaller else 'Print it on smaller paper'}.",
                limit="page_pixels",
            )


def _deadline(seconds: float) -> raw.IFSDK_PAUSE:
    """What pdfium asks between two steps of drawing: whether to stop."""
    until = time.monotonic() + seconds
    pause = raw.IFSDK_PAUSE(version=1)
    pypdfium2.internal.set_callback(pause, "NeedToPauseNow", lambda _: time.monotonic() > until)
    return pause
