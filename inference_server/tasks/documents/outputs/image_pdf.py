"""Images as PDF pages that show them as they are, with their text invisible above them. Written page by page."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.images.files import DAMAGE, images_of
from inference_server.tasks.documents.outputs.image_streams import ImageStream, image_stream, points_of
from inference_server.tasks.documents.outputs.port import Original
from inference_server.tasks.documents.pdf.glyphless import ADVANCE, CODES_TO_GLYPHS, DESCENT, TO_UNICODE, font_file
from inference_server.tasks.documents.pdf.placement import placed_words
from inference_server.tasks.documents.values import DocumentSummary, PageResult

_CATALOGUE, _PAGES, _FONT, _DESCENDANT, _DESCRIPTOR, _FONT_FILE, _TO_UNICODE, _GLYPHS = range(1, 9)
_FIRST_FREE = 9
# In points.
_A4 = (595.0, 842.0)
_HEADER = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"


class ImagePdfWriter:
    """One page for each, in the image's own resolution."""

    def __init__(self, original: Original) -> None:
        self._content = original.content
        self._media_type = original.media_type
        self._images = images_of(original.content, original.media_type)
        self._offsets: dict[int, int] = {}
        self._length = 0
        self._next = _FIRST_FREE
        self._page_objects: list[int] = []

    def page(self, page: PageResult) -> Iterator[bytes]:
        """The image, its text, and the page that shows both; one that could not be read is blank, so that all keep their numbers."""
        if not self._length:
            yield self._written(_HEADER)
        if page.error:
            width, height = self._told_size(page)
            yield self._page_object(self._next, width, height, "")
            self._next += 1
            return
        stream, width, height = self._image_stream(page)
        image, content, number = self._next, self._next + 1, self._next + 2
        self._next += 3
        yield self._image_object(image, stream)
        yield self._stream(content, {}, _drawn(page, stream, width, height))
        shown = f"/Contents {content} 0 R /Resources << /XObject << /Im {image} 0 R >> /Font << /F {_FONT} 0 R >> >>"
        yield self._page_object(number, width, height, shown)

    def end(self, summary: DocumentSummary) -> Iterator[bytes]:
        """The font, the tree of pages, and where all of it lies."""
        if not self._length:
            yield self._written(_HEADER)
        yield from self._font_objects()
        kids = " ".join(f"{number} 0 R" for number in self._page_objects)
        yield self._object(_PAGES, f"<< /Type /Pages /Kids [{kids}] /Count {len(self._page_objects)} >>".encode())
        yield self._object(_CATALOGUE, f"<< /Type /Catalog /Pages {_PAGES} 0 R >>".encode())
        start = self._length
        rows = b"".join(b"%010d 00000 n \n" % self._offsets[number] for number in range(1, self._next))
        yield self._written(
            b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n"
            % (self._next, rows, self._next, _CATALOGUE, start)
        )

    def close(self) -> None:
        """Free the image."""
        self._images.close()

    def _image_stream(self, page: PageResult) -> tuple[ImageStream, float, float]:
        """The image, and its page's width and height in points."""
        try:
            image = self._images.open(page.page_number - 1)
            # Before it is decoded: then Pillow has turned a TIFF, and tells no more that it was.
            width, height = points_of(image, page.width, page.height)
            return image_stream(image, self._content, self._media_type), width, height
        except DAMAGE as error:
            raise InvalidDocument(
                f"page {page.page_number} cannot be put into a PDF: the image is damaged. Save or scan it again."
            ) from error

    def _told_size(self, page: PageResult) -> tuple[float, float]:
        """Of a page that could not be read, as far as its file tells without being decoded: it may have been refused for its size."""
        if self._media_type != "image/tiff":
            # Pillow decodes a PNG to tell how it is turned. Of one image all fails with its only page.
            return _A4
        try:
            image = self._images.open(page.page_number - 1)
            return points_of(image, *image.size)
        except DAMAGE:
            return _A4

    def _page_object(self, number: int, width: float, height: float, shown: str) -> bytes:
        self._page_objects.append(number)
        box = f"/MediaBox [0 0 {width:.4f} {height:.4f}]"
        return self._object(number, f"<< /Type /Page /Parent {_PAGES} 0 R {box} {shown or '/Resources << >>'} >>".encode())

    def _image_object(self, number: int, stream: ImageStream) -> bytes:
        entries = {"Type": "/XObject", "Subtype": "/Image", "Width": stream.width, "Height": stream.height, **stream.entries}
        if stream.palette:
            entries["ColorSpace"] = f"[/Indexed /DeviceRGB {len(stream.palette) // 3 - 1} <{stream.palette.hex()}>]"
        return self._stream(number, entries, stream.data, is_packed=True)

    def _font_objects(self) -> Iterator[bytes]:
        descendant = (
            f"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Glyphless /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) "
            f"/Supplement 0 >> /FontDescriptor {_DESCRIPTOR} 0 R /CIDToGIDMap {_GLYPHS} 0 R /DW {ADVANCE} >>"
        )
        descriptor = (
            f"<< /Type /FontDescriptor /FontName /Glyphless /Flags 5 /FontBBox [0 0 {ADVANCE} 1000] /ItalicAngle 0 /Ascent 1000 "
            f"/Descent {-DESCENT} /CapHeight 1000 /StemV 80 /FontFile2 {_FONT_FILE} 0 R >>"
        )
        font = (
            f"<< /Type /Font /Subtype /Type0 /BaseFont /Glyphless /Encoding /Identity-H /DescendantFonts [{_DESCENDANT} 0 R] "
            f"/ToUnicode {_TO_UNICODE} 0 R >>"
        )
        yield self._object(_FONT, font.encode())
        yield self._object(_DESCENDANT, descendant.encode())
        yield self._object(_DESCRIPTOR, descriptor.encode())
        file = font_file()
        yield self._stream(_FONT_FILE, {"Length1": len(file)}, file)
        yield self._stream(_TO_UNICODE, {}, TO_UNICODE)
        yield self._stream(_GLYPHS, {}, CODES_TO_GLYPHS)

    def _stream(self, number: int, entries: Mapping[str, object], data: bytes, *, is_packed: bool = False) -> bytes:
        """`is_packed`: whether the entries name the filter that the data has gone through; else it is packed here."""
        if not is_packed:
            data, entries = zlib.compress(data), {**entries, "Filter": "/FlateDecode"}
        told = " ".join(f"/{name} {value}" for name, value in entries.items())
        return self._object(number, b"<< %s /Length %d >>\nstream\n%s\nendstream" % (told.encode(), len(data), data))

    def _object(self, number: int, content: bytes) -> bytes:
        self._offsets[number] = self._length
        return self._written(b"%d 0 obj\n%s\nendobj\n" % (number, content))

    def _written(self, data: bytes) -> bytes:
        self._length += len(data)
        return data


def _drawn(page: PageResult, stream: ImageStream, width: float, height: float) -> bytes:
    """The image, turned as it is to be seen, then the words."""
    turn = " ".join(f"{value:.4f}" for value in stream.placed(width, height))
    to_points = np.array([(width / page.width, 0, 0), (0, -height / page.height, height)])
    words = [text for line in page.lines for text in placed_words(line, to_points)]
    shown = "".join(
        f"{' '.join(f'{value:.4f}' for value in text.matrix)} Tm <{''.join(f'{code:04X}' for code in text.codes)}> Tj\n" for text in words
    )
    return f"q {turn} cm /Im Do Q\nBT 3 Tr /F 1 Tf\n{shown}ET\n".encode()
