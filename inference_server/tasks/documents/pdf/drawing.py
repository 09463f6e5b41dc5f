"""A PDF file that is open in this process, and pictures of its pages."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pypdfium2
from pypdfium2 import raw

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pdf.library import POINTS_PER_INCH, open_pdf

if TYPE_CHECKING:
    from inference_server.tasks.documents.values import TextLayer

_COLOURS = 3


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A page that was drawn."""

    height: int
    width: int
    # RGB, height × width × 3 bytes.
    content: Any


class PdfFile:
    """A PDF whose pages are drawn one at a time."""

    def __init__(self, content: bytes, *, password: str) -> None:
        """Raises `InvalidDocument` when the file is broken or encrypted."""
        self.content, self.password = content, password
        self._document = open_pdf(content, password)
        # Values that were typed into a form are drawn by the form environment only.
        with suppress(pypdfium2.PdfiumError):
            self._document.init_forms()
        self.page_count = len(self._document)

    def page(self, index: int, dpi: int, *, most_pixels: int, lowest_dpi: int) -> Picture:
        """Draw the page at `index`, from 0; `dpi`: dots per inch. Raises `InvalidDocument`, with the highest dpi that fits if any does."""
        with self._loaded(index) as page:
            size = _pixels(index + 1, page, dpi)
            _check_pixels(index + 1, size, dpi, most_pixels, lowest_dpi)
            try:
                return _drawn(page, *size)
            except (pypdfium2.PdfiumError, ValueError) as error:
                raise InvalidDocument(f"page {index + 1} cannot be rendered; the file is damaged there.") from error

    def wanted_layer(self, index: int, dpi: int, mode: str) -> TextLayer | None:
        """The file's own text of a page where the mode, one of `TextMode`, takes it; None where its picture is to be read.

        Raises `InvalidDocument`.
        """
        if mode == "ocr":
            return None
        try:
            layer = self.text_layer(index, dpi)
        except InvalidDocument:
            if mode == "auto":
                return None
            raise
        return layer if mode == "layer" or layer.is_sound else None

    def text_layer(self, index: int, dpi: int) -> TextLayer:
        """What the file itself says the page at `index` holds. Raises `InvalidDocument`."""
        # Pages that are drawn do without what it imports.
        from inference_server.tasks.documents.pdf.layer import read_layer

        with self._loaded(index) as page:
            try:
                return read_layer(page, *_pixels(index + 1, page, dpi))
            except (pypdfium2.PdfiumError, ValueError) as error:
                raise InvalidDocument(f"the text of page {index + 1} cannot be read; the file is damaged there.") from error

    def close(self) -> None:
        """Free the document."""
        self._document.close()

    @contextmanager
    def _loaded(self, index: int) -> Iterator[pypdfium2.PdfPage]:
        try:
            page = self._document[index]
        except pypdfium2.PdfiumError as error:
            raise InvalidDocument(f"page {index + 1} is broken: its description cannot be read.") from error
        try:
            yield page
        finally:
            page.close()


def _drawn(page: pypdfium2.PdfPage, width: int, height: int) -> Picture:
    content = (ctypes.c_ubyte * (width * height * _COLOURS))()
    bitmap = raw.FPDFBitmap_CreateEx(width, height, raw.FPDFBitmap_BGR, content, width * _COLOURS)
    if not bitmap:
        raise ValueError
    try:
        raw.FPDFBitmap_FillRect(bitmap, 0, 0, width, height, 0xFFFFFFFF)
        place = (0, 0, width, height, 0, raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER)
        raw.FPDF_RenderPageBitmap(bitmap, page.raw, *place)
        if page.formenv:
            raw.FPDF_FFLDraw(page.formenv.raw, bitmap, page.raw, *place)
    finally:
        raw.FPDFBitmap_Destroy(bitmap)
    return Picture(height=height, width=width, content=content)


def _pixels(number: int, page: pypdfium2.PdfPage, dpi: int) -> tuple[int, int]:
    width, height = page.get_width(), page.get_height()
    if not (width > 0 and height > 0 and math.isfinite(width * height)):
        raise InvalidDocument(f"page {number} has no area ({width} × {height} points).")
    scale = dpi / POINTS_PER_INCH
    return math.ceil(width * scale), math.ceil(height * scale)


def _check_pixels(number: int, size: tuple[int, int], dpi: int, most_pixels: int, lowest_dpi: int) -> None:
    width, height = size
    if width * height <= most_pixels:
        return
    fitting = int(dpi * math.sqrt(most_pixels / (width * height)))
    remedy = f"Ask for a dpi of at most {fitting}" if fitting >= lowest_dpi else "Print it on smaller paper"
    raise InvalidDocument(
        f"page {number} would have {width} × {height} pixels at {dpi} dpi; at most {most_pixels} pixels are accepted. {remedy}.",
        limit="page_pixels",
    )
