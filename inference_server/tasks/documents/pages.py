"""Documents as pages: the format is told by the content, limits are checked before anything is decoded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from inference_server.errors import InvalidDocument, InvalidInput
from inference_server.tasks.documents.images.files import ImagePages
from inference_server.tasks.documents.page_time import PageTime
from inference_server.tasks.documents.pdf.pages import PdfPages
from inference_server.tasks.documents.pdf.processes import PdfProcesses
from inference_server.tasks.documents.running import opened
from inference_server.tasks.documents.values import Limits, Page, TextLayer, TextMode

PDF = "application/pdf"

# pdfium, too, looks for the header in the first kilobyte: some writers put other bytes before it.
_PDF_HEADER_WITHIN = 1024

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
)

# Behind the length of the first box: images of HEVC, one or several.
_HEIC = (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftypmif1", b"ftypmsf1")

# What it holds may begin with a PDF, as it is.
_ZIP = b"PK\x03\x04"

# Formats that people send and that are not read, for a better message.
_KNOWN_OTHERS = (
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (_ZIP, "a ZIP archive or an Office document"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"{\\rtf", "an RTF document"),
    (b"%!PS", "PostScript"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
)


class Pages(Protocol):
    """A document whose pages are made one at a time."""

    @property
    def media_type(self) -> str:
        """The format, as told by the content."""

    @property
    def page_count(self) -> int:
        """Pages of the document."""

    async def read(self, index: int, mode: TextMode, time: PageTime) -> Page | TextLayer:
        """The picture of the page at `index`, from 0, upright, when its turn has come; or the file's own text where the mode takes it.

        Raises `InvalidDocument` when it cannot be decoded or is too large.
        """

    async def close(self) -> None:
        """Free the document."""


class PicturePages:
    """The pages of an image file, decoded in threads."""

    def __init__(self, pages: ImagePages) -> None:
        self.media_type, self.page_count = pages.media_type, pages.page_count
        self._pages = pages

    async def read(self, index: int, mode: TextMode, time: PageTime) -> Page:
        """See `Pages`."""
        if mode is TextMode.LAYER:
            raise InvalidDocument(f"a {self.media_type} file has no text of its own. Ask for OCR or AUTO in `text_mode`.")
        await time.turn()
        return await asyncio.to_thread(self._pages.page, index)

    async def close(self) -> None:
        """Free the file."""
        await asyncio.to_thread(self._pages.close)


@dataclass(frozen=True, kw_only=True)
class File:
    """What is to be opened."""

    content: bytes = field(repr=False)
    media_type: str
    # Dots per inch at which PDF pages are drawn.
    dpi: int
    # Of an encrypted PDF.
    password: str = field(repr=False)


def checked_type(content: bytes, limits: Limits) -> str:
    """The format of a document whose bytes keep within the limits. Raises `InvalidDocument`."""
    if not content:
        raise InvalidDocument("the document is empty (0 bytes). Check that the file was written, and send its bytes.")
    if len(content) > limits.most_bytes:
        raise InvalidDocument(
            f"the document has {len(content)} bytes; at most {limits.most_bytes} are accepted. Split it, or scan at a lower resolution.",
            limit="document_bytes",
        )
    return media_type_of(content)


async def open_pages(file: File, *, limits: Limits, processes: PdfProcesses, time: PageTime) -> PdfPages | PicturePages:
    """Open what `checked_type` let pass, without decoding a page. Raises `InvalidDocument`, and `Unavailable` without a process."""
    if file.media_type != PDF:
        return PicturePages(await opened(partial(ImagePages, file.content, file.media_type, limits=limits)))
    pages = PdfPages(file.content, dpi=file.dpi, password=file.password, limits=limits, processes=processes)
    try:
        await pages.open(time)
    except BaseException:
        await pages.close()
        raise
    return pages


def checked_dpi(dpi: int, limits: Limits) -> int:
    """The resolution to render at; 0 becomes the default. Raises `InvalidInput`."""
    if dpi == 0:
        return limits.default_dpi
    if not limits.lowest_dpi <= dpi <= limits.highest_dpi:
        raise InvalidInput(f"dpi is {dpi}; expected {limits.lowest_dpi} to {limits.highest_dpi}, or 0 for {limits.default_dpi}.")
    return dpi


def selected_pages(asked: tuple[int, ...], page_count: int, limits: Limits) -> tuple[int, ...]:
    """The page numbers to read, from 1, in order and once each; none asked for means all. Raises `InvalidDocument`."""
    numbers = tuple(sorted(set(asked))) or tuple(range(1, page_count + 1))
    if wrong := [number for number in numbers if not 1 <= number <= page_count]:
        raise InvalidDocument(f"page {wrong[0]} was asked for; the document has pages 1 to {page_count}.")
    if len(numbers) > limits.most_pages:
        raise InvalidDocument(
            f"{len(numbers)} pages are to be read; at most {limits.most_pages} are accepted in one request. Name fewer in `pages`.",
            limit="document_pages",
        )
    return numbers


def media_type_of(content: bytes) -> str:
    """Tell the format by the first bytes. Raises `InvalidDocument`."""
    for signature, media_type in _SIGNATURES:
        if content.startswith(signature):
            return media_type
    if b"%PDF-" in content[:_PDF_HEADER_WITHIN] and not content.startswith(_ZIP):
        return PDF
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if content[4:12] in _HEIC:
        return "image/heic"
    raise InvalidDocument(
        f"the document is {_likeness(content)}; expected a PDF, PNG, JPEG, TIFF, WebP or HEIC file. Convert it to one of them."
    )


def _likeness(content: bytes) -> str:
    if content[4:12] == b"ftypavif":
        return "an AVIF image"
    for signature, name in _KNOWN_OTHERS:
        if content.startswith(signature):
            return name
    head = content[:512]
    if b"\x00" not in head and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return "text"
    return "of no known format"
