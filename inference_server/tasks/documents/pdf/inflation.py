"""What the streams of a PDF unpack to, told before pdfium unpacks one: it takes whatever memory they ask for, up to a gigabyte each.

Streams are found by their keywords, and told by their first bytes (RFC 1950), not by the filters that the file names. They are followed to
where deflate ends, not to the word `endstream`, which may stand within them. Deflate packs to a thousandth at the most (zlib's technical
notes): streams that are too small for it, by a length that pdfium goes by too (ISO 32000-1, 7.3.8.2), are passed over, so that usual files
are not unpacked twice. Not told are LZW and run lengths, deflate behind another filter, images within a page's content and encrypted
files. What a page draws many times over has a check of its own (`expansion`).
"""

from __future__ import annotations

import math
import re
import time
import zlib

from inference_server.errors import InvalidDocument

# pdfium leaves out the rest of the keyword's line. Each match reaches behind it, so that all of them together read the file once.
_STREAM = re.compile(rb"stream[^\r\n]*+(?:\r\n|\r|\n)?")
_END = re.compile(rb"(?:\r\n|\r|\n)?endstream\b")
_IMAGE = re.compile(rb"/Subtype\s*/Image\b")
# A dictionary is looked for so far before its stream.
_DICTIONARY = 4096
_PLAIN = re.compile(rb"\s*<<[^%#()]*>>\s*")
_LENGTH = re.compile(rb"/Length\s+(\d{1,12})\s*[/>]")
# The most that deflate packs.
_MOST_PACKED = 1032
# Streams are packed several times over by no program; more layers than this are not followed.
_MOST_LAYERS = 4
# All streams of a file together: so many times what one may unpack to, and of small files fewer times and so much for each of their bytes.
# Clean pages in colours pack to a ninetieth. Half a gigabyte takes a second.
_MOST_TOGETHER, _FEW_TOGETHER, _TOGETHER_A_BYTE = 64, 4, 128
# How often the file's bytes may be read: streams lie within others only where a file is attached that was not packed.
_MOST_READ = 2
# What it takes to look at a keyword, in bytes that would be unpacked meanwhile.
_KEYWORD = 512
_FIRST_PIECE, _PACKED_PIECE, _PIECE = 1024, 64 * 1024, 1024 * 1024
_HEADER = 2
LIMIT = "pdf_stream_bytes"


def check_inflation(content: bytes, *, most_bytes: int, most_image_bytes: int, until: float = math.inf) -> None:
    """Raise `InvalidDocument` where a stream, or an image, unpacks to more, or all of them to many times as much; blocks.

    Raises `TimeoutError` where it takes longer, on the clock of `time.monotonic`.
    """
    sums = Sums.of(content, most_bytes, until)
    before = 0
    with memoryview(content) as view:
        for found in _STREAM.finditer(content):
            sums.take_packed(_KEYWORD)
            start = found.end()
            if _is_packed(content[start : start + _HEADER]):
                dictionary = content[max(before, found.start() - _DICTIONARY) : found.start()]
                dictionary = dictionary[dictionary.rfind(b"obj") + len(b"obj") :]
                most = most_image_bytes if _IMAGE.search(dictionary) else most_bytes
                length = _length(dictionary, content, start)
                if length is None or length * _MOST_PACKED > most or _is_packed_twice(view[start : start + length]):
                    _Layer(most, sums).feed(view[start:])
            before = start


def _is_packed(head: bytes) -> bool:
    """Whether bytes begin as zlib's do: deflate with a window of 32 KB at most, and a checksum."""
    return len(head) == _HEADER and head[0] & 0x8F == 8 and (head[0] * 256 + head[1]) % 31 == 0


def _length(dictionary: bytes, content: bytes, start: int) -> int | None:
    """A stream's length, where its dictionary tells one that cannot be read in two ways, and the stream does end there."""
    found = _LENGTH.findall(dictionary)
    if len(found) != 1 or not _PLAIN.fullmatch(dictionary) or dictionary.count(b"<<") != dictionary.count(b">>"):
        return None
    length = int(found[0])
    return length if _END.match(content, start + length) else None


def _is_packed_twice(packed: memoryview) -> bool:
    try:
        return _is_packed(zlib.decompressobj().decompress(packed, _HEADER))
    except zlib.error:
        return False


class Sums:
    """What all streams of a file may still take, in bytes; and until when, which each of its calls looks at."""

    def __init__(self, *, packed: int, unpacked: int, until: float = math.inf) -> None:
        self._until = until
        self._packed = packed
        self._unpacked = self._most_unpacked = unpacked

    @classmethod
    def of(cls, content: bytes, most_bytes: int, until: float = math.inf) -> Sums:
        """Of a file of which no stream unpacks to more than so many."""
        together = min(_MOST_TOGETHER * most_bytes, _FEW_TOGETHER * most_bytes + _TOGETHER_A_BYTE * len(content))
        return cls(packed=_MOST_READ * len(content) + most_bytes, unpacked=together, until=until)

    def check_time(self) -> None:
        """Raises `TimeoutError`."""
        if time.monotonic() > self._until:
            raise TimeoutError

    def take_packed(self, size: int) -> None:
        """Count bytes of the file that are read. Raises `InvalidDocument`."""
        self.check_time()
        self._packed -= size
        if self._packed < 0:
            raise InvalidDocument(
                "the PDF has too many streams for its size, or streams that lie within each other. Export the document again.", limit=LIMIT
            )

    def take_unpacked(self, size: int) -> None:
        """Count bytes that they unpack to. Raises `InvalidDocument`."""
        self.check_time()
        self._unpacked -= size
        if self._unpacked < 0:
            raise InvalidDocument(
                f"the streams of the PDF unpack to more than {self._most_unpacked} bytes together. Split it into several files.",
                limit=LIMIT,
            )


class _Layer:
    """Unpacks piece by piece, and what is packed again once more. What is damaged ends there, as it does for pdfium."""

    def __init__(self, most: int, sums: Sums, further: int = _MOST_LAYERS - 1) -> None:
        self.ended = False
        self._inflater = zlib.decompressobj()
        self._most, self._sums, self._further = most, sums, further
        self._total, self._piece = 0, _FIRST_PIECE
        # The first byte, while the second one is not known.
        self._held = b""
        self._inner: _Layer | None = None

    def feed(self, packed: memoryview) -> None:
        at = 0
        # What only looks like deflate is seen not to be within little.
        while at < len(packed) and not self.ended:
            self._unpack(packed[at : at + self._piece])
            at, self._piece = at + self._piece, min(2 * self._piece, _PACKED_PIECE)

    def _unpack(self, packed: bytes | memoryview) -> None:
        while packed and not self.ended:
            try:
                found = self._inflater.decompress(packed, _PIECE)
            except zlib.error:
                self._sums.take_packed(len(packed))
                self.ended = True
                return
            rest, self.ended = self._inflater.unconsumed_tail, self._inflater.eof
            self._sums.take_packed(len(packed) - len(rest) - len(self._inflater.unused_data))
            packed = rest
            self._take(found)

    def _take(self, found: bytes) -> None:
        self._total += len(found)
        if self._total > self._most:
            raise InvalidDocument(
                f"a stream of the PDF unpacks to more than {self._most} bytes. Export the document again, or scan at a lower resolution.",
                limit=LIMIT,
            )
        self._sums.take_unpacked(len(found))
        if self._inner is None and self._further:
            found = self._held = self._held + found
            if len(found) >= _HEADER:
                self._inner = _Layer(self._most, self._sums, self._further - 1)
                self._inner.ended = not _is_packed(found[:_HEADER])
        if self._inner is not None and not self._inner.ended:
            self._inner.feed(memoryview(found))
