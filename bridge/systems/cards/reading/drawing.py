"""Draws the pages of a PDF for a program that reads pictures alone.

    python -m bridge.systems.cards.reading.drawing DPI PAGES PIXELS TURN

Takes the PDF from standard input, and writes each page as a binary PGM (grey, 8 bits) to standard output. The exit status is one of
`FAILURES` for a document that cannot be drawn; no more is said of it.

A process of its own: pdfium is not thread-safe, and a broken file may end it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import sqrt
from typing import Any

_POINTS_AN_INCH = 72
# pdfium's error of a document that wants a password.
_NEEDS_PASSWORD = 4
_NO_LIBRARY, _ENCRYPTED, _BROKEN, _TOO_LONG = range(10, 14)
# Exit statuses, and what they mean; `{pages}`: the most that are drawn.
FAILURES = {
    _NO_LIBRARY: "it is a PDF, and pypdfium2, which draws its pages, is not installed; pip install 'lamina[pdf]'",
    _ENCRYPTED: "the PDF is encrypted",
    _BROKEN: "the PDF is broken",
    _TOO_LONG: "the PDF has more than the {pages} pages that are read",
}


class CannotDrawError(Exception):
    """A document cannot be drawn."""

    def __init__(self, status: int) -> None:
        """`status`: one of `FAILURES`."""
        super().__init__(FAILURES[status])
        self.status = status


def drawn(content: bytes, *, dpi: int, most_pages: int, most_pixels: int, turn: int = 0) -> Iterator[bytes]:
    """Each page as a PGM, one at a time. A page that would have more pixels is drawn at the `dpi` that fits.

    `turn`: clockwise, 0 or 180. Raises `CannotDrawError`.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise CannotDrawError(_NO_LIBRARY) from error
    try:
        with pypdfium2.PdfDocument(content) as document:
            if len(document) > most_pages:
                raise CannotDrawError(_TOO_LONG)
            document.init_forms()
            for number in range(len(document)):
                yield _page(document[number], dpi, most_pixels, turn)
    except pypdfium2.PdfiumError as error:
        raise CannotDrawError(_ENCRYPTED if getattr(error, "err_code", None) == _NEEDS_PASSWORD else _BROKEN) from error


def _page(page: Any, dpi: int, most_pixels: int, turn: int) -> bytes:
    width, height = page.get_size()
    scale = min(dpi / _POINTS_AN_INCH, sqrt(most_pixels / max(width * height, 1.0)))
    bitmap = page.render(scale=scale, rotation=turn, grayscale=True, may_draw_forms=True)
    rows = memoryview(bitmap.buffer).cast("B")
    picture = b"".join(rows[start : start + bitmap.width] for start in range(0, bitmap.stride * bitmap.height, bitmap.stride))
    return b"P5\n%d %d\n255\n" % (bitmap.width, bitmap.height) + picture


def main() -> int:
    """Draw what standard input holds; returns the exit status."""
    dpi, most_pages, most_pixels, turn = map(int, sys.argv[1:])
    try:
        for picture in drawn(sys.stdin.buffer.read(), dpi=dpi, most_pages=most_pages, most_pixels=most_pixels, turn=turn):
            sys.stdout.buffer.write(picture)
            sys.stdout.buffer.flush()
    except CannotDrawError as error:
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
