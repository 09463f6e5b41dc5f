"""One stream of a connection: what its caller sends, and the messages that answer it, sent as far as the caller's windows allow."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

import grpc

from inference_server.service.http2 import frames
from inference_server.service.http2.blocks import RESPONSE_HEAD, TRAILERS_OK, block_of, trailers
from inference_server.service.http2.compression import compress
from inference_server.service.http2.frames import ErrorCode
from inference_server.service.http2.headers import CallHead, Metadata
from inference_server.service.http2.incoming import Incoming
from inference_server.service.http2.messages import OWN_STATUS, PREFIX, PREFIX_SIZE, PUSHBACK, MessageLimits, Status

# Unsent bytes of one stream beyond which its writer waits.
MOST_UNSENT = 2**18
# Bytes below which a part of a message is not worth a frame, when more window may come.
_LEAST_PART = 256


class Line(Protocol):
    """The connection as a stream sees it."""

    # Bytes that may be sent on it, and the most of one frame.
    send_window: int
    frame_size: int
    # Whether the socket takes no more for now.
    paused: bool

    def write(self, *parts: bytes | memoryview) -> None:
        """Send frames of a stream, whose bytes may lie apart."""

    def headers(self, stream: int, flags: int, block: bytes) -> bytes:
        """The frames of headers."""

    def sent(self, *, useful: bool) -> None:
        """A part of a message was sent; `useful` unless the peer's windows let it be tiny."""

    def wait(self, stream: Stream) -> None:
        """The stream has more to send than may be sent now."""

    def ended(self, stream: Stream) -> None:
        """The stream's last frame was sent."""


class Stream(Incoming):
    """Made when a call's headers have arrived."""

    __slots__ = (
        "_head_block", "_head_sent", "_left_mark", "_left_marked", "_line", "_parts_sent", "_room", "_trailers", "_unsent", "_unsent_bytes",
        "response_encoding", "send_window",
    )  # fmt: skip

    def __init__(self, line: Line, number: int, head: CallHead, *, send_window: int, limits: MessageLimits) -> None:
        super().__init__(line, number, head, limits)
        self._line = line
        self.send_window = send_window
        self.response_encoding = ""
        self._head_block = b""
        self._head_sent = False
        self._unsent: deque[bytes | memoryview] = deque()
        self._unsent_bytes = 0
        self._parts_sent = 0
        self._trailers: bytes | None = None
        self._room: asyncio.Future[None] | None = None
        # How far what waits for the caller had come, and when.
        self._left_mark = -1
        self._left_marked = 0.0

    # What a servicer does.

    def send_head(self, metadata: Metadata) -> None:
        """Keep the caller's first metadata for the first frame."""
        self._head_block += block_of(metadata)

    def send_head_now(self) -> None:
        """Send it without waiting for a message."""
        if not self._head_sent and not self.over:
            self._line.write(self._head())

    async def send(self, content: bytes, *, last: bool = False) -> None:
        """Send a message, and that all is well after the `last` one; returns when there is room for another."""
        compressed = await compress(content, self.response_encoding) if self.response_encoding else None
        if self.over or self._trailers is not None:
            return
        if compressed is not None:
            content = compressed
        prefix = PREFIX.pack(compressed is not None, len(content))
        size = PREFIX_SIZE + len(content)
        line = self._line
        if size <= self.send_window and size <= line.send_window and size <= line.frame_size and not self._unsent_bytes and not line.paused:
            self._send_whole(prefix, content, last)
        elif self._limits.leaving.try_hold(size, own=self._unsent_bytes):
            await self._send_in_parts(prefix, content, last)
        else:
            words = "the answers that wait for their callers hold too many bytes for another one; try again shortly."
            self.finish(Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details=words, metadata=PUSHBACK))

    def _send_whole(self, prefix: bytes, content: bytes, last: bool) -> None:
        size = PREFIX_SIZE + len(content)
        self.send_window -= size
        line = self._line
        line.send_window -= size
        line.sent(useful=True)
        head = self._head() + frames.frame_header(size, frames.DATA, 0, self.number) + prefix
        if not last:
            line.write(head, content)
            return
        line.write(head, content, line.headers(self.number, frames.END_STREAM, TRAILERS_OK))
        self._end()

    async def _send_in_parts(self, prefix: bytes, content: bytes, last: bool) -> None:
        """Also wait until the caller has taken most of it, so that the call goes on as long as its answer takes room."""
        self.send_head_now()
        self._unsent += (prefix, memoryview(content))
        self._unsent_bytes += PREFIX_SIZE + len(content)
        self._trailers = TRAILERS_OK if last else None
        self.pump()
        while self._unsent_bytes > MOST_UNSENT and not self.over:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    def finish(self, status: Status) -> None:
        """End the call. Without a message before it, one frame of headers says it all."""
        if self.over or self._trailers is not None:
            return
        metadata = (*status.metadata, *OWN_STATUS) if status.code is grpc.StatusCode.UNAVAILABLE else status.metadata
        block = trailers(status.code.value[0], status.details, metadata)
        if not self._head_sent:
            block = RESPONSE_HEAD + self._head_block + block
            self._head_sent = True
        self._trailers = block
        self.pump()

    def break_off(self, status: Status) -> None:
        """End the call that came to nothing, whatever waits for its caller."""
        if self._unsent_bytes:
            self.reset(ErrorCode.CANCEL)
        else:
            self.finish(status)

    def refuse(self, block: bytes) -> None:
        """Answer what is no call."""
        self._head_sent = True
        self._trailers = block
        self.pump()

    def reset(self, code: ErrorCode) -> None:
        """End the stream without an answer."""
        if not self.over:
            self.no_more = True  # so that no second reset follows
            self._line.write(frames.reset(self.number, code))
            self._end()

    # What the connection does.

    def _head(self) -> bytes:
        """The frame of headers before the first message; empty later on."""
        if self._head_sent:
            return b""
        self._head_sent = True
        block = RESPONSE_HEAD + self._head_block
        if self.response_encoding:
            block += block_of([("grpc-encoding", self.response_encoding)])
        return self._line.headers(self.number, 0, block)

    def pump(self) -> None:
        """Send what the windows allow."""
        while self.pump_once():
            pass
        if self.has_unsent:
            self._line.wait(self)

    def pump_once(self) -> bool:
        """Send one frame, when the windows allow; whether another one could follow."""
        line = self._line
        if self.over or line.paused:
            return False
        if self._unsent_bytes:
            size = min(self._unsent_bytes, self.send_window, line.send_window, line.frame_size)
            if size <= 0:
                return False
            self._send_part(size)
            return True
        if self._trailers is not None:
            line.write(line.headers(self.number, frames.END_STREAM, self._trailers))
            self._end()
        return False

    def _send_part(self, size: int) -> None:
        line = self._line
        self.send_window -= size
        line.send_window -= size
        self._unsent_bytes -= size
        self._parts_sent += 1
        self._limits.leaving.release(size)
        line.sent(useful=size >= _LEAST_PART or not self._unsent_bytes)
        parts: list[bytes | memoryview] = [frames.frame_header(size, frames.DATA, 0, self.number)]
        while size:
            part = self._unsent.popleft()
            if len(part) > size:
                self._unsent.appendleft(memoryview(part)[size:])
                part = memoryview(part)[:size]
            parts.append(part)
            size -= len(part)
        is_last = self._trailers is not None and not self._unsent_bytes
        if is_last:
            parts.append(line.headers(self.number, frames.END_STREAM, self._trailers or b""))
        line.write(*parts)
        if is_last:
            self._end()
        elif self._unsent_bytes <= MOST_UNSENT:
            self._make_room()

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for the caller to take it."""
        return not self.over and (self._unsent_bytes > 0 or self._trailers is not None)

    def is_stuck(self, now: float, seconds: float) -> bool:
        """Whether the caller has taken nothing for so long of what waits for it."""
        if not self.has_unsent:
            self._left_mark = -1
            return False
        if self._parts_sent != self._left_mark:
            self._left_mark, self._left_marked = self._parts_sent, now
        return now - self._left_marked > seconds

    def _end(self) -> None:
        self.over = True
        self._line.ended(self)

    def abandon(self) -> None:
        """Forget what the caller sent and what is for it."""
        self.over = True
        self.forget()
        self._limits.leaving.release(self._unsent_bytes)
        self._unsent.clear()
        self._unsent_bytes = 0
        self._make_room()

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
