"""A picture as the page of a PDF, its data as they are (ISO 32000-1, 7.4 and 8.9.5): what draws PDFs can turn it then."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from bridge.systems.cards.reading.pictures import picture_format

# Start of a frame in any coding; SOF4, SOF8 and SOF12 are other segments (ITU-T T.81, table B.1).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Segments without a length: TEM, restarts, start and end of the image.
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})
_START_OF_SCAN = 0xDA
_SPACES = {1: b"/DeviceGray", 3: b"/DeviceRGB"}
# PNG's colour types: grey, true colour, palette.
_GREY, _RGB, _PALETTE = 0, 2, 3


def page_of(picture: bytes) -> bytes | None:
    """A PDF of one page, a point for each pixel; None for what has no such form.

    Of PNG those that are neither interlaced nor transparent nor deeper than 8 bits have one, of JPEG those in grey or in three colours.
    """
    kind = picture_format(picture)
    try:
        image = _jpeg(picture) if kind == "JPEG" else _png(picture) if kind == "PNG" else None
    except (struct.error, IndexError):
        return None
    return image and _pdf(*image)


def _jpeg(picture: bytes) -> tuple[int, int, bytes, bytes] | None:
    place = 2
    while place < len(picture):
        marker = picture[place + 1]
        if picture[place] != 0xFF or marker == _START_OF_SCAN:
            return None
        if marker in _FRAMES:
            depth, height, width, channels = struct.unpack_from(">BHHB", picture, place + 4)
            fits = depth == 8 and channels in _SPACES and width and height
            return (width, height, b"/ColorSpace %b /BitsPerComponent 8 /Filter /DCTDecode" % _SPACES[channels], picture) if fits else None
        # A marker may be preceded by any number of 0xFF.
        place += 1 if marker == 0xFF else 2 if marker in _BARE else 2 + struct.unpack_from(">H", picture, place + 2)[0]
    return None


def _png(picture: bytes) -> tuple[int, int, bytes, bytes] | None:
    chunks = list(_chunks(picture))
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    names = {name for name, _ in chunks}
    if depth > 8 or interlaced or b"tRNS" in names or colour not in {_GREY, _RGB, _PALETTE} or not width or not height:
        return None
    space, channels = (b"/DeviceRGB", 3) if colour == _RGB else (b"/DeviceGray", 1)
    if colour == _PALETTE:
        palette = dict(chunks).get(b"PLTE", b"")
        space = b"[/Indexed /DeviceRGB %d <%b>]" % (len(palette) // 3 - 1, palette.hex().encode())
    # Its rows are predicted as PDF's are (15), each by a method of its own.
    rows = b"<</Predictor 15 /Colors %d /BitsPerComponent %d /Columns %d>>" % (channels, depth, width)
    how = b"/ColorSpace %b /BitsPerComponent %d /Filter /FlateDecode /DecodeParms %b" % (space, depth, rows)
    return width, height, how, b"".join(body for name, body in chunks if name == b"IDAT")


def _chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(picture):
        length, name = struct.unpack_from(">I4s", picture, place)
        yield name, picture[place + 8 : place + 8 + length]
        place += length + 12


def _pdf(width: int, height: int, how: bytes, data: bytes) -> bytes:
    drawing = b"q %d 0 0 %d 0 0 cm /I Do Q" % (width, height)
    objects = [
        b"<</Type /Catalog /Pages 2 0 R>>",
        b"<</Type /Pages /Kids [3 0 R] /Count 1>>",
        b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Resources <</XObject <</I 4 0 R>>>> /Contents 5 0 R>>" % (width, height),
        b"<</Type /XObject /Subtype /Image /Width %d /Height %d %b /Length %d>>\nstream\n%b\nendstream"
        % (width, height, how, len(data), data),
        b"<</Length %d>>\nstream\n%b\nendstream" % (len(drawing), drawing),
    ]
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, one in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer\n<</Size 6 /Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(out)
    return bytes(out) + b"xref\n0 6\n0000000000 65535 f \n" + table + end
