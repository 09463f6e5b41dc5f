"""Writes small vector PDFs, so that tests need no PDF library and no fonts: readers bring the standard fonts with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

A4 = (595, 842)


@dataclass(frozen=True, kw_only=True)
class Text:
    """A run of text on a page."""

    text: str
    # Of the baseline's start, in points from the left and from the top.
    x: float
    y: float
    size: float = 11
    # One of the standard fonts, such as Helvetica, Times-Roman, Courier-Bold.
    font: str = "Helvetica"


def pdf(pages: Sequence[Sequence[Text]], size: tuple[float, float] = A4) -> bytes:
    """A PDF with text at the given places, black on white."""
    fonts = sorted({text.font for page in pages for text in page})
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    font_numbers = {font: len(objects) + 1 + index for index, font in enumerate(fonts)}
    objects += [f"<< /Type /Font /Subtype /Type1 /BaseFont /{font} /Encoding /WinAnsiEncoding >>".encode() for font in fonts]
    resources = " ".join(f"/F{number} {number} 0 R" for number in font_numbers.values())
    kids = []
    for page in pages:
        content = b"".join(_shown(text, size[1], font_numbers[text.font]) for text in page)
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] /Contents {len(objects)} 0 R "
            f"/Resources << /Font << {resources} >> >> >>".encode()
        )
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    return _file(objects)


def _shown(text: Text, page_height: float, font_number: int) -> bytes:
    escaped = text.text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)").encode("cp1252")
    return b"BT /F%d %g Tf %g %g Td (%s) Tj ET\n" % (font_number, text.size, text.x, page_height - text.y, escaped)


def _file(objects: Sequence[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.7\n")
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)
    return bytes(out)
