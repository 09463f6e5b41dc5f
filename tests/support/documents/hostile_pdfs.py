"""PDFs that ask for more memory, or time, than there is."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

_FORM = b"/Type /XObject /Subtype /Form /BBox [0 0 400 400]"
# More than a process may have that may have little.
_SPACES = 150_000_000


def stream(content: bytes, entries: bytes = b"") -> bytes:
    """A stream as an object has it."""
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries, len(content), content)


def document(content: bytes, *more: bytes) -> bytes:
    """A page of a content, which is a stream; further objects begin with number 5, the form F."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 400] /Contents 4 0 R /Resources << /XObject << /F 5 0 R >> >> >>",
        content,
        *more,
    ]
    return (
        b"%PDF-1.7\n"
        + b"".join(b"%d 0 obj\n%s\nendobj\n" % numbered for numbered in enumerate(objects, 1))
        + b"trailer\n<< /Root 1 0 R >>\n"
    )


def drawing_itself(content: bytes) -> bytes:
    """A page whose form has that content, and itself by the name F."""
    return document(stream(b"/F Do"), stream(content, _FORM + b" /Resources << /XObject << /F 5 0 R >> >>"))


def _chain(length: int, times: int) -> bytes:
    """Forms of which each draws the next so often."""
    forms = [stream(b"/F Do " * times, _FORM + b" /Resources << /XObject << /F %d 0 R >> >>" % (6 + number)) for number in range(length)]
    return document(stream(b"/F Do"), *forms, stream(b"0 0 9 9 re f", _FORM))


def lzw(size: int) -> bytes:
    """So many spaces or some more, by LZW (ISO 32000-1, 7.4.4): codes of runs that grow by one, and anew when the table is full."""
    codes, length = [], 0
    while length < size:
        codes.append(f"{256:09b}" if not codes else f"{256:012b}")
        codes.append(f"{32:09b}")
        length += 1
        for run, code in enumerate(range(258, 4090), 2):
            width = 9 if code < 511 else 10 if code < 1023 else 11 if code < 2047 else 12
            codes.append(f"{code:0{width}b}")
            length += run
    bits = "".join(codes) + f"{257:012b}"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _deflated() -> bytes:
    return zlib.compress(b" " * _SPACES, 9)


# What makes each, by what it does.
BOMBS: Mapping[str, Callable[[], bytes]] = {
    "a form that draws itself": lambda: drawing_itself(b"/F Do /F Do"),
    "by a name that ends in a zero byte": lambda: drawing_itself(b"/F\0Do /F\0Do"),
    "forms that draw each other": lambda: _chain(12, 10),
    "deflate": lambda: document(stream(_deflated(), b"/Filter /FlateDecode")),
    "deflate twice": lambda: document(stream(zlib.compress(_deflated(), 9), b"/Filter [/FlateDecode /FlateDecode]")),
    "deflate behind digits": lambda: document(stream(_deflated().hex().encode() + b">", b"/Filter [/ASCIIHexDecode /FlateDecode]")),
    "LZW": lambda: document(stream(lzw(_SPACES), b"/Filter /LZWDecode")),
}
