"""What kind of picture a file is, by its content: of those that Tesseract's library, leptonica, knows by the same marks."""

from __future__ import annotations

# What each format begins with; where something else stands, and what.
_MARKS: tuple[tuple[str, bytes, int, bytes], ...] = (
    ("PNG", b"\x89PNG\r\n\x1a\n", 0, b""),
    ("JPEG", b"\xff\xd8\xff", 0, b""),
    ("TIFF", b"II*\0", 0, b""),
    ("TIFF", b"MM\0*", 0, b""),
    ("WebP", b"RIFF", 8, b"WEBP"),
    ("GIF", b"GIF87a", 0, b""),
    ("GIF", b"GIF89a", 0, b""),
    ("BMP", b"BM", 6, b"\0\0\0\0"),
    ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n", 0, b""),
)
PICTURES = tuple(dict.fromkeys(name for name, *_ in _MARKS))


def picture_format(content: bytes) -> str:
    """The name of a picture's format, one of `PICTURES`; empty for anything else."""
    return next((name for name, first, place, then in _MARKS if content.startswith(first) and content.startswith(then, place)), "")
