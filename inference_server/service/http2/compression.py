"""Messages that are sent compressed. Source: gRPC, "Compression"."""

from __future__ import annotations

import zlib

# By the value of grpc-encoding: the size of zlib's window, with 16 added for gzip's frame.
_WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}

ENCODINGS = ("identity", *_WINDOWS)


class NotDecompressed(Exception):
    """The message is not what its encoding says, or is larger than may be."""


def is_known(encoding: str) -> bool:
    """Whether messages in an encoding can be read."""
    return encoding in ENCODINGS


def decompress(content: bytes | bytearray, encoding: str, *, most_bytes: int) -> bytes:
    """A message as it was before it was compressed. Raises `NotDecompressed`, before memory is taken for what is too large."""
    if encoding not in _WINDOWS:
        raise NotDecompressed(f"a message is marked as compressed, and grpc-encoding says {encoding}")
    decompressor = zlib.decompressobj(_WINDOWS[encoding])
    try:
        message = decompressor.decompress(content, most_bytes + 1)
    except zlib.error as error:
        raise NotDecompressed(f"a message is no {encoding}") from error
    if len(message) > most_bytes:
        raise NotDecompressed(f"a message is larger than max when decompressed (more than {most_bytes} bytes)")
    if not decompressor.eof:
        raise NotDecompressed(f"a message ends inside its {encoding}")
    return message


def compress(content: bytes, encoding: str) -> bytes:
    """A message in an encoding that is known."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOWS[encoding])
    return compressor.compress(content) + compressor.flush()
