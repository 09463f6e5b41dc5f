"""What the streams of a PDF unpack to, told before pdfium unpacks one: it takes whatever memory they ask for, up to a gigabyte each.

Streams are found by their keywords, and told by their first bytes (RFC 1950), not by what the file says of them. Deflate packs to a
thousandth at the most (zlib's technical notes): streams that are too small for it are passed over, so that usual files are not unpacked
twice. Streams of encrypted files, and LZW, are not told.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

from inference_server.errors import InvalidDocument

_STREAM = re.compile(rb"(?<!end)stream[ \t]{0,8}(?:\r\n|\r|\n)")
_END = b"endstream"
_IMAGE = re.compile(rb"/Subtype\s*/Image\b")
# A dictionary is looked for so far before its stream.
_DICTIONARY = 4096
# The most that deflate packs.
_MOST_PACKED = 1032
# Streams are packed several times over by no program; more layers than this are not followed.
_MOST_LAYERS = 4
_PIECE = 1024 * 1024
_HEADER = 2


def check_inflation(content: bytes, *, most_bytes: int, most_image_bytes: int) -> None:
    """Raise `InvalidDocument` where a stream, or an image, unpacks to more; blocks."""
    place = 0
    while found := _STREAM.search(content, place):
        start, end = found.end(), content.find(_END, found.end())
        end = len(content) if end < 0 else end
        dictionary = content[max(place, found.start() - _DICTIONARY) : found.start()]
        most = most_image_bytes if _IMAGE.search(dictionary, dictionary.rfind(b"obj") + 1) else most_bytes
        if _is_packed(content[start : start + _HEADER]) and (
            (end - start) * _MOST_PACKED > most or _is_packed_twice(content[start : min(start + _PIECE, end)])
        ):
            pieces: Iterable[bytes] = (content[at : min(at + _PIECE, end)] for at in range(start, end, _PIECE))
            for _ in _unpacked(pieces, most, _MOST_LAYERS):
                pass
        place = end


def _is_packed(head: bytes) -> bool:
    """Whether bytes begin as zlib's do: deflate with a window of 32 KB at most, and a checksum."""
    return len(head) == _HEADER and head[0] & 0x8F == 8 and (head[0] * 256 + head[1]) % 31 == 0


def _is_packed_twice(packed: bytes) -> bool:
    try:
        return _is_packed(zlib.decompressobj().decompress(packed, _HEADER))
    except zlib.error:
        return False


def _unpacked(pieces: Iterable[bytes], most: int, layers: int) -> Iterator[bytes]:
    """Unpack piece by piece, and what is packed again once more."""
    found = _inflated(pieces, most)
    first = next(found, b"")
    whole = chain([first], found)
    return _unpacked(whole, most, layers - 1) if layers > 1 and _is_packed(first[:_HEADER]) else iter(whole)


def _inflated(pieces: Iterable[bytes], most: int) -> Iterator[bytes]:
    """What is damaged ends there, as it does for pdfium."""
    unpacker, total = zlib.decompressobj(), 0
    for piece in pieces:
        rest = piece
        while rest and not unpacker.eof:
            try:
                found = unpacker.decompress(rest, _PIECE)
            except zlib.error:
                return
            rest = unpacker.unconsumed_tail
            total += len(found)
            if total > most:
                raise InvalidDocument(
                    f"a stream of the PDF unpacks to more than {most} bytes. Export the document again, or scan at a lower resolution.",
                    limit="stream_bytes",
                )
            if found:
                yield found
