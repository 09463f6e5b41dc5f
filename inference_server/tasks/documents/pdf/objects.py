"""The objects of a PDF, found by their keywords: those of the file, and those that its streams of objects hold."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import islice, pairwise

from inference_server.tasks.documents.pdf.inflation import Sums

# Before the word that an object begins with: its number, and how often that was used.
_NUMBER = re.compile(rb"(?<!\d)(\d{1,10})\s+\d{1,5}\s+$")
_NUMBER_BYTES = 32
# What a dictionary ends with, and the line on which a stream's keyword stands.
_STREAM = re.compile(rb">>\s{0,8}stream[^\r\n]*+(?:\r\n|\r|\n)?")
_OBJECT_END = re.compile(rb"endobj")
# What it takes to look at a word, in bytes of the file.
_WORD = 64
_ESCAPED = re.compile(rb"#([0-9A-Fa-f]{2})")
_FIRST = re.compile(rb"/First\s+(\d{1,10})\b")
_COUNT = re.compile(rb"/N\s+(\d{1,10})\b")
_PAIR = re.compile(rb"(\d{1,10})\D++(\d{1,10})")
# Bytes that what is kept of a packed object, or of a name, counts beside its text.
KEPT = 512
_PIECE = 64 * 1024


def objects(content: bytes, sums: Sums) -> Iterator[tuple[int, bytes, int | None]]:
    """Number and dictionary of each object, and where its stream begins; None where it has none."""
    streams, ends = _Following(_STREAM, content), _Following(_OBJECT_END, content)
    at = content.find(b"obj")
    while at >= 0:
        sums.take_packed(_WORD)
        start = at + len(b"obj")
        if number := _NUMBER.search(content[max(0, at - _NUMBER_BYTES) : at]):
            (stream, begun), (end, _) = streams.after(start), ends.after(start)
            sums.take_packed(min(stream, end) - start)
            yield int(number[1]), plain(content[start : min(stream, end)]), begun if stream < end else None
        at = content.find(b"obj", start)


class _Following:
    """Where something comes next, for places that go up; the file is read once."""

    def __init__(self, pattern: re.Pattern[bytes], content: bytes) -> None:
        self._found = pattern.finditer(content)
        self._none = (len(content), len(content))
        self._next = (-1, -1)

    def after(self, place: int) -> tuple[int, int]:
        """Start and end of the first one from a place on; those of the file's end where there is none."""
        while self._next[0] < place:
            found = next(self._found, None)
            self._next = found.span() if found else self._none
        return self._next


def objects_within(dictionary: bytes, unpacked: bytes, sums: Sums) -> Iterator[tuple[int, bytes]]:
    """Objects that a stream of objects holds: pairs of number and place, then the objects (ISO 32000-1, 7.5.7)."""
    first = _FIRST.search(dictionary)
    begin = int(first[1]) if first else 0
    pairs = []
    for pair in islice(_PAIR.finditer(unpacked, 0, begin), max(map(int, _COUNT.findall(dictionary)), default=None)):
        sums.take_unpacked(KEPT)
        pairs.append((int(pair[1]), begin + int(pair[2])))
    # Places need not go up; an object ends where any other begins.
    ends = dict(pairwise([*sorted({place for _, place in pairs}), len(unpacked)]))
    for number, start in pairs:
        text = unpacked[start : ends[start]]
        sums.take_unpacked(len(text))
        yield number, plain(text)


def unpacked_stream(content: bytes, start: int, most_bytes: int, sums: Sums) -> bytes:
    """A stream, up to so many bytes; what is no deflate as it is, up to its end."""
    inflater, unpacked = zlib.decompressobj(), bytearray()
    try:
        while not inflater.eof and len(unpacked) < most_bytes and start < len(content):
            piece = content[start : start + _PIECE]
            unpacked += inflater.decompress(piece, most_bytes - len(unpacked))
            sums.take_packed(len(piece) - len(inflater.unused_data))
            start += len(piece)
    except zlib.error:
        if not unpacked:
            unpacked += content[start : content.find(b"endstream", start)]
            sums.take_packed(len(unpacked))
    sums.take_unpacked(len(unpacked))
    return bytes(unpacked)


def plain(text: bytes) -> bytes:
    """Names as they are meant."""
    return _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)), text) if b"#" in text else text
