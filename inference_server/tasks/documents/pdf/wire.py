"""How the server and its processes for PDFs talk: frames, each a head in JSON and a body of bytes. Nothing that is read is ever run."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, Protocol

# Bytes of the head, and of the body.
_SIZES = struct.Struct("<IQ")
# More than the text of the longest page that is read.
_MOST_HEAD = 32 * 2**20
# The most of a file that is made comes at a time.
PIECE_BYTES = 1024 * 1024
# With this status a process ends that would take more memory than it may.
MEMORY_STATUS = 99


class Readable(Protocol):
    """What frames are read from."""

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer at the end alone."""


class Cut(Exception):
    """The other side is gone, or speaks otherwise."""


def frame(head: Mapping[str, Any], body_size: int = 0) -> bytes:
    """What goes before a body of so many bytes."""
    told = json.dumps(head, separators=(",", ":")).encode()
    return _SIZES.pack(len(told), body_size) + told


def send(channel: socket.socket, head: Mapping[str, Any], body: Any = b"") -> None:
    """Send a frame whose body is at hand. Raises `Cut`."""
    view = memoryview(body).cast("B")
    try:
        channel.sendall(frame(head, len(view)))
        channel.sendall(view)
    except OSError as error:
        raise Cut from error


def read_head(stream: Readable) -> tuple[dict[str, Any], int]:
    """The head of the next frame, and how many bytes of body come behind it. Raises `Cut`."""
    try:
        size, body_size = _SIZES.unpack(exactly(stream, _SIZES.size))
        if size > _MOST_HEAD:
            raise Cut
        head = json.loads(exactly(stream, size))
    except ValueError as error:
        raise Cut from error
    if not isinstance(head, dict):
        raise Cut
    return head, body_size


def exactly(stream: Readable, size: int) -> bytes:
    """So many bytes. Raises `Cut`."""
    try:
        content = stream.read(size)
    except OSError as error:
        raise Cut from error
    if len(content) < size:
        raise Cut
    return content
