"""A PDF whose page pdfium draws for hours, without asking whether to stop."""

from __future__ import annotations

from collections.abc import Sequence

_CELL = b"1 0 0 rg 0 0 1 1 re f"
_PAGE = b"/Pattern cs /P scn 0 0 400 400 re f"
# A large cell at steps of a hundredth of a point: each is drawn by itself.
_PATTERN = b"/PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 10000 10000] /XStep 0.01 /YStep 0.01 /Resources << >>"


def endless_pdf() -> bytes:
    """One page of one pattern."""
    objects: Sequence[bytes] = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 400] /Contents 4 0 R /Resources << /Pattern << /P 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(_PAGE), _PAGE),
        b"<< %s /Length %d >>\nstream\n%s\nendstream" % (_PATTERN, len(_CELL), _CELL),
    ]
    return (
        b"%PDF-1.7\n"
        + b"".join(b"%d 0 obj\n%s\nendobj\n" % numbered for numbered in enumerate(objects, 1))
        + b"trailer\n<< /Root 1 0 R >>\n"
    )
