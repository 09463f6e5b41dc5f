"""Bytes to frames. What is not yet a whole frame is kept; the content of DATA frames goes on as it comes."""

from __future__ import annotations

from typing import Protocol

from inference_server.service.http2 import frames
from inference_server.service.http2.frames import ConnectionFailed, ErrorCode
from inference_server.service.http2.stream import Stream

# Bytes of the largest DATA frame that is taken, and of other frames, which are read whole.
LARGEST_DATA = 2**20
LARGEST_CONTROL = 32 * 1024
# Bytes that connections are read into, one after the other.
SCRATCH_SIZE = 2**17
# Bytes from which on the rest of a message is received straight into it.
_LARGE = 16 * 1024


class Receiver(Protocol):
    """Takes frames in their order. Each may raise `ConnectionFailed`."""

    def frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """A frame other than DATA."""

    def data_begins(self, number: int, size: int, padding: int, *, is_last: bool) -> Stream | None:
        """A DATA frame with so many bytes, of which so many are padding; who takes its content, None for nobody."""

    def data_ends(self, stream: Stream | None, *, is_last: bool) -> None:
        """It is all there."""


class FrameReader:
    """Reads the frames of one connection.

    Bytes are received into memory that all connections share: asyncio asks for it just before it fills it, and tells so at once.
    """

    def __init__(self, receiver: Receiver, scratch: memoryview) -> None:
        self._receiver = receiver
        self._scratch = scratch
        # What was received and is not yet understood.
        self._rest = b""
        # The DATA frame that is arriving: who takes it, what is left of its content and of its padding, and whether it is the last one.
        self._stream: Stream | None = None
        self._left = self._padding = 0
        self._in_data = self._is_last = False
        # The rest of a message, where the socket writes straight into.
        self._direct: memoryview | None = None
        self._greeted = self._stopped = False
        # Frames so far.
        self._count = 0

    @property
    def begun(self) -> int | None:
        """The number of the frame that has begun and not ended; None between frames."""
        return self._count if not self._greeted or self._in_data or self._rest else None

    def stop(self) -> None:
        """Understand nothing more."""
        self._stopped = True
        self._rest = b""
        self._stream = self._direct = None

    def forget(self, stream: Stream) -> None:
        """Nobody takes what still comes for a stream."""
        if self._stream is stream:
            self._stream = self._direct = None

    def space(self) -> memoryview:
        """Where the next bytes go."""
        if self._direct is not None:
            return self._direct
        kept = len(self._rest)
        if not kept:
            return self._scratch
        self._scratch[:kept] = self._rest
        return self._scratch[kept:]

    def received(self, size: int) -> None:
        """So many bytes were put there. Raises `ConnectionFailed`."""
        if self._stopped:
            return
        if self._direct is not None:
            self._received_directly(self._direct, size)
            return
        at, end = 0, len(self._rest) + size
        if not self._greeted:
            at = self._greet(end)
        while self._greeted and not self._stopped:
            after = self._read(at, end)
            if after is None:
                break
            at = after
        self._rest = b"" if at == end or self._stopped else bytes(self._scratch[at:end])

    def _greet(self, end: int) -> int:
        preface = frames.PREFACE
        given = bytes(self._scratch[: min(end, len(preface))])
        if not preface.startswith(given):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "this port speaks HTTP/2 without an upgrade from HTTP/1.1")
        self._greeted = len(given) == len(preface)
        return len(preface) if self._greeted else 0

    def _read(self, at: int, end: int) -> int | None:
        """Read a frame, or what has come of its data; where the next begins, None when more bytes are needed."""
        if self._in_data:
            return self._read_data(at, end) if at < end else None
        body = at + frames.HEADER_SIZE
        if body > end:
            return None
        size, kind, flags, number = frames.read_frame_header(self._scratch, at)
        if kind == frames.DATA:
            return self._begin_data(size, flags, number, body, end)
        if size > LARGEST_CONTROL:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, f"a frame of type {kind} has {size} bytes; at most {LARGEST_CONTROL}")
        after = body + size
        if after > end:
            return None
        self._count += 1
        self._receiver.frame(kind, flags, number, bytes(self._scratch[body:after]))
        return after

    def _begin_data(self, size: int, flags: int, number: int, at: int, end: int) -> int | None:
        """Take the header of a DATA frame; where its content begins, None when the length of its padding has not come."""
        if size > LARGEST_DATA:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes; at most {LARGEST_DATA}")
        padding = told = 0
        if flags & frames.PADDED:
            if not size:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a frame is too short to be padded")
            if at == end:
                return None
            padding, told = self._scratch[at], 1
            if padding >= size:
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the padding is longer than its frame")
        self._count += 1
        self._left, self._padding = size - padding - told, padding
        self._in_data, self._is_last = True, bool(flags & frames.END_STREAM)
        self._stream = self._receiver.data_begins(number, size, padding + told, is_last=self._is_last)
        self._end_data()
        return at + told

    def _read_data(self, at: int, end: int) -> int:
        taken = min(self._left, end - at)
        self._left -= taken
        if taken and self._stream is not None:
            self._stream.feed(self._scratch[at : at + taken], self._left)
        at += taken
        if self._left:
            space = self._stream.space() if self._stream is not None else None
            if space is not None and min(self._left, len(space)) >= _LARGE:
                self._direct = space[: self._left]
            return at
        skipped = min(self._padding, end - at)
        self._padding -= skipped
        self._end_data()
        return at + skipped

    def _received_directly(self, direct: memoryview, size: int) -> None:
        self._left -= size
        self._direct = direct[size:] if size < len(direct) else None
        if self._stream is not None:
            self._stream.filled(size)
            if self._stream.space() is None:  # it came to its end, or to nothing
                self._direct = None
        self._end_data()

    def _end_data(self) -> None:
        if self._in_data and not self._left and not self._padding:
            stream, self._stream = self._stream, None
            self._in_data = False
            self._receiver.data_ends(stream, is_last=self._is_last)
