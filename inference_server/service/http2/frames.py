"""HTTP/2 frames: their types, flags and error codes, and how they are written. Source: RFC 9113, sections 4, 6 and 7."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE = 9

# Frame types.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

_OF_CONNECTIONS = frozenset({SETTINGS, PING, GOAWAY})
_OF_STREAMS = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION, PUSH_PROMISE})

# Flags.
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

# Settings.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(1, 7)

# What holds until the peer's settings say otherwise, and the most that windows and frames may be.
DEFAULT_WINDOW = 65_535
DEFAULT_FRAME_SIZE = 16_384
LARGEST_WINDOW = 2**31 - 1
LARGEST_FRAME_SIZE = 2**24 - 1

_HEADER = struct.Struct(">BHBBI")
_SETTING = struct.Struct(">HI")
_NUMBER = struct.Struct(">I")
_STREAM_ID = 0x7FFF_FFFF


class ErrorCode(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12


class ConnectionFailed(Exception):
    """The peer broke the protocol, or asks too much: the connection ends."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def frame_header(size: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes before a payload of `size` bytes."""
    return _HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream)


def read_frame_header(buffer: memoryview, at: int) -> tuple[int, int, int, int]:
    """Size of the payload, type, flags and stream."""
    high, low, kind, flags, stream = _HEADER.unpack_from(buffer, at)
    return high << 16 | low, kind, flags, stream & _STREAM_ID


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return frame_header(len(payload), kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A frame that tells our settings."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """The settings of a frame, each checked by itself. Raises `ConnectionFailed`."""
    if len(payload) % _SETTING.size:
        raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a frame of settings ends inside one")
    for key, value in _SETTING.iter_unpack(payload):
        if key == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
        if key == MAX_FRAME_SIZE and not DEFAULT_FRAME_SIZE <= value <= LARGEST_FRAME_SIZE:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"frames of at most {value} bytes cannot be asked for")
        if key == ENABLE_PUSH and value > 1:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "pushes are allowed or not; expected 0 or 1")
        yield key, value


def window_update(stream: int, increment: int) -> bytes:
    """A frame that lets the peer send so many bytes more; of stream 0 for the connection."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(increment))


def reset(stream: int, code: ErrorCode) -> bytes:
    """A frame that ends a stream."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def go_away(last_stream: int, code: ErrorCode, reason: str = "") -> bytes:
    """A frame after which the peer opens no streams."""
    return frame(GOAWAY, 0, 0, _NUMBER.pack(last_stream) + _NUMBER.pack(code) + reason.encode())


def read_number(payload: bytes) -> int:
    """A window's increment or an error code. Raises `ConnectionFailed`."""
    if len(payload) != _NUMBER.size:
        raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, f"a number takes {_NUMBER.size} bytes, not {len(payload)}")
    return int(_NUMBER.unpack(payload)[0])


def check_place(kind: int, number: int) -> None:
    """Raise `ConnectionFailed` for a frame of a stream that belongs to the connection, or the other way round."""
    if kind in _OF_CONNECTIONS and number:
        raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"a frame of type {kind} belongs to no stream")
    if kind in _OF_STREAMS and not number:
        raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"a frame of type {kind} belongs to a stream")


def unpadded(payload: bytes, flags: int) -> bytes:
    """The payload of a HEADERS frame without padding and priority. Raises `ConnectionFailed`."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload or payload[0] >= len(payload):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the padding is longer than its frame")
        start, end = 1, end - payload[0]
    if flags & HAS_PRIORITY:
        start += 5
    if start > end:
        raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a frame of headers is too short for its flags")
    return payload[start:end]
