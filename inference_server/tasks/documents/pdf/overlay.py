"""Lays invisible text over the pages of a PDF. What is on the pages stays as it is: streams are copied, and one is added to each page."""

from __future__ import annotations

import ctypes
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pypdfium2
from pypdfium2 import raw

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pdf.glyphless import CODES_TO_GLYPHS, TO_UNICODE, font_file
from inference_server.tasks.documents.pdf.layer import read_layer
from inference_server.tasks.documents.pdf.library import open_pdf
from inference_server.tasks.documents.pdf.packing import lines_of
from inference_server.tasks.documents.pdf.pixels import points_to_pixels
from inference_server.tasks.documents.pdf.placement import PlacedText, placed_words
from inference_server.tasks.documents.pdf.wire import PIECE_BYTES, exactly, read_head
from inference_server.tasks.documents.values import Line, TextLayer, Word


@dataclass(frozen=True, kw_only=True)
class ReadPage:
    """What is laid over a page."""

    # From 1.
    number: int
    # Of the picture that it was read from, in pixels.
    width: int
    height: int
    lines: Sequence[Line]


def lay_over(content: bytes, password: str, pages: bytes, write: Callable[[bytes], None]) -> None:
    """Write a PDF with text over its pages. `pages`: frames as `packed_page` makes them. Raises `InvalidDocument`."""
    with closing(PdfOverlay(content, password)) as overlay:
        for page in _unpacked(pages):
            overlay.add(page)
        overlay.save(write)


def _unpacked(pages: bytes) -> Iterator[ReadPage]:
    stream = io.BytesIO(pages)
    while stream.tell() < len(pages):
        head, size = read_head(stream)
        width, height = head["size"]
        yield ReadPage(number=head["page"], width=width, height=height, lines=lines_of(head["lines"], exactly(stream, size)))


class PdfOverlay:
    """Adds the text of each page that was read from its picture, less what the page holds itself: a search would find it twice.

    Pages with sound text of their own get none.
    """

    def __init__(self, content: bytes, password: str) -> None:
        """A copy of its own: text stays on the pages to which it was added."""
        self._document = open_pdf(content, password)
        self._font = _font(self._document)

    def save(self, write: Callable[[bytes], None]) -> None:
        """Write the whole file, in pieces. Raises `InvalidDocument`."""
        pieces = _Pieces(write)
        try:
            # The password that opened it is the caller's own; what is made of it is theirs to protect.
            self._document.save(pieces, flags=raw.FPDF_REMOVE_SECURITY)
        except pypdfium2.PdfiumError as error:
            if pieces.failure:
                raise pieces.failure from None
            raise InvalidDocument("the PDF cannot be written anew; the file is damaged. Export it again.") from error
        pieces.flush()

    def close(self) -> None:
        """Free the document."""
        raw.FPDFFont_Close(self._font)
        self._document.close()

    def add(self, result: ReadPage) -> None:
        """Lay text over a page. Raises `InvalidDocument`."""
        page = self._loaded(result.number)
        try:
            layer = read_layer(page, result.width, result.height)
            if layer.is_sound:
                return
            held = _Held(layer)
            forwards = points_to_pixels(page, result.width, result.height)
            backwards = np.linalg.inv(np.vstack([forwards, (0, 0, 1)]))[:2]
            for line in result.lines:
                for text in placed_words(held.less(line), backwards):
                    raw.FPDFPage_InsertObject(page.raw, self._text_object(text))
            page.gen_content()
        except pypdfium2.PdfiumError as error:
            raise InvalidDocument(f"page {result.number} takes no text; the file is damaged there.") from error
        finally:
            page.close()

    def _loaded(self, number: int) -> pypdfium2.PdfPage:
        try:
            return self._document[number - 1]
        except pypdfium2.PdfiumError as error:
            raise InvalidDocument(f"page {number} takes no text: its description cannot be read.") from error

    def _text_object(self, text: PlacedText) -> Any:
        shape = raw.FPDFPageObj_CreateTextObj(self._document.raw, self._font, 1.0)
        raw.FPDFText_SetCharcodes(shape, (ctypes.c_uint32 * len(text.codes))(*text.codes), len(text.codes))
        raw.FPDFTextObj_SetTextRenderMode(shape, raw.FPDF_TEXTRENDERMODE_INVISIBLE)
        raw.FPDFPageObj_TransformF(shape, raw.FS_MATRIX(*map(_settled, text.matrix)))
        return shape


class _Pieces:
    """Gathers what pdfium writes, a few bytes at a time."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._held = bytearray()
        # Why pdfium was told to stop: what is raised to it is lost on the way.
        self.failure: BaseException | None = None

    def write(self, data: Any) -> None:
        try:
            self._held += data
            if len(self._held) >= PIECE_BYTES:
                self.flush()
        except BaseException as error:
            self.failure = error
            raise

    def flush(self) -> None:
        for start in range(0, len(self._held), PIECE_BYTES):
            self._write(bytes(self._held[start : start + PIECE_BYTES]))
        self._held.clear()


class _Held:
    """The words that a page holds, as of a scan that was made searchable before, or beside a large picture."""

    def __init__(self, layer: TextLayer) -> None:
        self._bounds: dict[str, list[tuple[float, ...]]] = {}
        for word in (word for line in layer.lines for word in line.words):
            bounds = (*word.polygon.min(axis=0).tolist(), *word.polygon.max(axis=0).tolist())
            self._bounds.setdefault(word.text.casefold(), []).append(bounds)

    def less(self, line: Line) -> Line:
        """A line without the words that are held where they are seen."""
        return replace(line, words=tuple(word for word in line.words if not self._holds(word)))

    def _holds(self, word: Word) -> bool:
        x, y = word.polygon.mean(axis=0).tolist()
        return any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in self._bounds.get(word.text.casefold(), ()))


def _font(document: pypdfium2.PdfDocument) -> Any:
    content = font_file()
    font = raw.FPDFText_LoadCidType2Font(
        document.raw, _bytes(content), len(content), TO_UNICODE, _bytes(CODES_TO_GLYPHS), len(CODES_TO_GLYPHS)
    )
    if not font:
        raise InvalidDocument("the PDF takes no font; the file is damaged. Export it again.")
    return font


def _bytes(content: bytes) -> Any:
    return (ctypes.c_uint8 * len(content)).from_buffer_copy(content)


def _settled(value: float) -> float:
    """Without the dust of sines, which pdfium would write out in thirty digits."""
    return 0.0 if math.isclose(value, 0.0, abs_tol=1e-6) else value
