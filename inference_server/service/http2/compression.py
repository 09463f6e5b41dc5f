"""Messages that are sent compressed. Source: gRPC, "Compression".

Small ones are worked on at once, large ones in a thread; what comes out is asked for step by step, so that a small message that stands
for a huge one takes no memory that there is none for.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

# By the value of grpc-encoding: the size of zlib's window, with 16 added for gzip's frame.
_WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}

ENCODINGS = ("identity", *_WINDOWS)

# Bytes that come out in a step, and that go in.
_STEP = 2**20
_SLICE = 2**18
# Bytes up to which a thread costs more than the work.
_SMALL = 16 * 1024
# Bytes below which a message is sent as it is.
_LEAST = 256


class NotDecompressed(Exception):
    """The message is not what its encoding says."""


class TooLarge(NotDecompressed):
    """It is larger than may be, or than there is room for."""


def is_known(encoding: str) -> bool:
    """Whether messages in an encoding can be read."""
    return encoding in ENCODINGS


async def decompress(content: bytes | bytearray, encoding: str, *, most_bytes: int, hold: Callable[[int], bool]) -> bytes:
    """A message as it was before it was compressed; `hold` is asked for the room of each step. Raises `NotDecompressed`."""
    if encoding not in _WINDOWS:
        raise NotDecompressed(f"a message is marked as compressed, and grpc-encoding says {encoding[:40]}")
    decompressor = zlib.decompressobj(_WINDOWS[encoding])
    parts: list[bytes] = []
    size = 0
    try:
        for at in range(0, len(content), _SLICE):
            rest: Any = memoryview(content)[at : at + _SLICE]
            while rest and not decompressor.eof:
                part = await _run(decompressor.decompress, rest, len(content))
                rest = decompressor.unconsumed_tail
                size += len(part)
                _check_room(size, len(part), most_bytes, hold)
                parts.append(part)
    except zlib.error as error:
        raise NotDecompressed(f"a message is no {encoding}") from error
    if not decompressor.eof or decompressor.unused_data:
        raise NotDecompressed(f"a message ends inside its {encoding}, or goes on after it")
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _run(step: Callable[[Any, int], bytes], content: Any, whole: int) -> bytes:
    if whole <= _SMALL:
        return step(content, _STEP)
    return await asyncio.to_thread(step, content, _STEP)


def _check_room(size: int, part: int, most_bytes: int, hold: Callable[[int], bool]) -> None:
    if size > most_bytes:
        raise TooLarge(f"a message is larger than max when decompressed (more than {most_bytes} bytes)")
    if not hold(part):
        raise TooLarge("the messages that arrive hold too many bytes for what this one is when decompressed; try again shortly.")


async def compress(content: bytes, encoding: str) -> bytes | None:
    """A message in an encoding that is known; None when it is better sent as it is."""
    if len(content) < _LEAST:
        return None
    if len(content) <= _SMALL:
        return _compress(content, encoding)
    return await asyncio.to_thread(_compress, content, encoding)


def _compress(content: bytes, encoding: str) -> bytes:
    compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOWS[encoding])
    return compressor.compress(content) + compressor.flush()
