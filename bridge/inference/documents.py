"""How a document is read, and what is read of it: frozen values, never protobuf messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word of a line."""

    text: str
    # 0 to 1.
    confidence: float
    # Four corners (x, y) in pixels of the page, clockwise from the top left of the text.
    polygon: tuple[tuple[float, float], ...]
    # What was read, where the server took it for a known word; else empty.
    read_text: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of text."""

    text: str
    # 0 to 1.
    confidence: float
    # As a word's.
    polygon: tuple[tuple[float, float], ...]
    words: tuple[Word, ...]


@dataclass(frozen=True, kw_only=True)
class PageQuality:
    """How good the picture of a page is."""

    # Variance of the lines' second derivatives, at one height and contrast, in the direction in which they are least sharp; None without
    # lines.
    sharpness: float | None
    # Share of the text's area that is burnt out, or into which text fades, 0 to 1.
    glare: float
    # Median of the lines, in pixels.
    text_height: float
    # Between paper and ink, 0 to 1.
    contrast: float


@dataclass(frozen=True, kw_only=True)
class KeyField:
    """A label of a page, and its value."""

    label: str
    value: str
    # 0 to 1.
    confidence: float
    # Of the value, as a word's.
    polygon: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class DocumentPage:
    """One page that was read."""

    # From 1.
    page_number: int
    # Pages of the document in all; 0 when the server does not tell.
    page_count: int
    # Of the page image, in pixels.
    width: int
    height: int
    # In reading order.
    lines: tuple[Line, ...]
    # In reading order, lines separated by line feeds.
    text: str
    # Why the page could not be read, or empty.
    error: str
    # Where the text was taken from: ocr or layer; empty when the server does not tell.
    text_source: str = ""
    # None where no picture was made, or the server does not tell.
    quality: PageQuality | None = None
    # What is told as `label: value`, in reading order.
    fields: tuple[KeyField, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DocumentChunk:
    """A piece of a file that the server makes of a document."""

    # File name: document.hocr, document.pdf.
    name: str
    media_type: str
    # Offset of the data in the file, in bytes.
    offset: int
    data: bytes
    # Whether the file ends here.
    last: bool
    # Why it could not be written to its end; empty when it is whole.
    error: str


@dataclass(frozen=True, kw_only=True)
class DocumentSummary:
    """What was read in all."""

    page_count: int
    failed_pages: int
    media_type: str
    # Of all words, 0 to 1.
    mean_confidence: float
    # As name:version@engine:precision.
    models: tuple[str, ...]
    duration_seconds: float


DocumentEvent = DocumentPage | DocumentChunk | DocumentSummary


@dataclass(frozen=True, kw_only=True)
class DocumentOptions:
    """How a document is read; what is left empty takes the server's defaults."""

    dpi: int = 0
    password: str = ""
    # Those to read, from 1; empty for all.
    pages: Sequence[int] = ()
    priority: int = 0
    # ocr, layer or auto.
    text_mode: str = ""
    # Files to make: json, txt, hocr, alto, pdf, tsv.
    formats: Sequence[str] = ()
    # gpu or cpu, which alone may run the models; a call raises `DeviceError` where it cannot.
    device: str = ""
