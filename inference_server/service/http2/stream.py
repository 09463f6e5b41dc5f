"""One stream of a connection: the messages that its caller sends, and those that answer it.

A message is preceded by five bytes: whether it is compressed, and its size. Messages are received into memory of their own size, and sent
as far as the caller's windows allow.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import grpc

from inference_server.service.http2 import frames
from inference_server.service.http2.compression import NotDecompressed, compress, decompress
from inference_server.service.http2.headers import RESPONSE_HEAD, TRAILERS_OK, CallHead, Metadata, block_of, trailers

PREFIX_SIZE = 5
_PREFIX = struct.Struct(">BI")

# Bytes that a caller may send before they are asked for. A larger message is let in as soon as its size is known.
RECEIVE_WINDOW = 2**20

# Unsent bytes of one stream beyond which its writer waits.
_MOST_UNSENT = 2**18

Content = bytes | bytearray


class ReceiveBudget:
    """Bounds the bytes of all messages that have begun to arrive and were not yet taken."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def try_hold(self, size: int) -> bool:
        """Take so many bytes if they fit; one message alone always fits."""
        if self.held and self.held + size > self._most:
            return False
        self.held += size
        return True

    def release(self, size: int) -> None:
        """Give them back."""
        self.held -= size


@dataclass(frozen=True, kw_only=True)
class MessageLimits:
    """What a message may be."""

    # Bytes of one, before and after decompression.
    most_bytes: int
    budget: ReceiveBudget


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What a call ends with."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    metadata: Metadata = field(default=())


class Line(Protocol):
    """The connection as a stream sees it."""

    # Bytes that may be sent on it, and the most of one frame.
    send_window: int
    frame_size: int
    # Whether the socket takes no more for now.
    paused: bool

    def write(self, content: bytes) -> None:
        """Send bytes of headers or messages."""

    def headers(self, stream: int, flags: int, block: bytes) -> bytes:
        """A frame of headers."""

    def write_parts(self, parts: list[bytes | memoryview]) -> None:
        """Send bytes that lie apart."""

    def ended(self, stream: Stream) -> None:
        """The stream's last frame was sent."""


class Stream:
    """Made when a call's headers have arrived."""

    __slots__ = (
        "_advanced", "_body", "_compressed", "_encoding", "_failed", "_filled", "_head_block", "_head_sent", "_held", "_limits", "_line",
        "_messages", "_owed", "_prefix", "_room", "_trailers", "_unsent", "_unsent_bytes", "_waiter", "head", "no_more", "number",
        "over", "receive_window", "response_encoding", "send_window",
    )  # fmt: skip

    def __init__(self, line: Line, number: int, head: CallHead, *, send_window: int, limits: MessageLimits) -> None:
        self._line = line
        self._limits = limits
        self.number = number
        self.head = head
        self.send_window = send_window
        self.receive_window = RECEIVE_WINDOW
        # The caller has sent its last message, or is gone.
        self.no_more = False
        # The last frame was sent, or nobody waits for one.
        self.over = False
        # Messages that have arrived, whole.
        self._messages: deque[tuple[Content, bool]] = deque()
        # Why none will follow.
        self._failed: Status | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._prefix = b""
        # The message that is arriving.
        self._body: bytearray | None = None
        self._filled = 0
        self._compressed = False
        self._held = 0
        # Bytes of window that are due to the caller, and those that it got ahead of time.
        self._owed = 0
        self._advanced = 0
        self._head_block = b""
        self._head_sent = False
        self._unsent: deque[bytes | memoryview] = deque()
        self._unsent_bytes = 0
        self._trailers: bytes | None = None
        self._room: asyncio.Future[None] | None = None
        self.response_encoding = ""

    # Receiving.

    def feed(self, data: memoryview) -> None:
        """Take bytes of messages, in the order of their arrival."""
        at, size = 0, len(data)
        while at < size and self._failed is None and not self.over:
            if self._body is not None:
                taken = min(len(self._body) - self._filled, size - at)
                self._body[self._filled : self._filled + taken] = data[at : at + taken]
                at += taken
                self.filled(taken)
                continue
            at = self._begin(data, at)

    def _begin(self, data: memoryview, at: int) -> int:
        """Read the bytes before a message, and the message with them when it is all there; where to go on."""
        available = len(data) - at
        if self._prefix or available < PREFIX_SIZE:
            taken = min(PREFIX_SIZE - len(self._prefix), available)
            self._prefix += bytes(data[at : at + taken])
            at += taken
            if len(self._prefix) < PREFIX_SIZE:
                return at
            prefix: tuple[int, int] = _PREFIX.unpack(self._prefix)
            self._prefix = b""
        else:
            prefix = _PREFIX.unpack_from(data, at)
            at += PREFIX_SIZE
        flag, size = prefix
        if not self._admit(flag, size):
            return at
        available = len(data) - at
        if available >= size:
            self._deliver(bytes(data[at : at + size]))
            return at + size
        self._body = bytearray(size)
        self._filled = 0
        missing = size - available - self.receive_window
        if missing > 0:
            self._advanced += missing
            self._grant(missing)
        return at

    def _admit(self, flag: int, size: int) -> bool:
        most = self._limits.most_bytes
        if flag > 1:
            self.fail(grpc.StatusCode.INTERNAL, f"a message begins with the flag {flag}; expected 0 or 1.")
        elif size > most:
            self.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, f"Received message larger than max ({size} vs. {most})")
        elif not self._limits.budget.try_hold(size):
            self.fail(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"the messages that arrive hold too many bytes for another {size}; try again shortly.",
                (("retry-after-ms", "250"), ("grpc-retry-pushback-ms", "250")),
            )
        else:
            self._held += size
            self._compressed = flag == 1
            return True
        return False

    def space(self) -> memoryview | None:
        """Where the rest of the message that is arriving goes; None when none is."""
        if self._body is None or self._failed is not None:
            return None
        return memoryview(self._body)[self._filled :]

    def filled(self, size: int) -> None:
        """So many bytes were put there."""
        self._filled += size
        if self._body is not None and self._filled == len(self._body):
            body, self._body = self._body, None
            self._deliver(body)

    def _deliver(self, content: Content) -> None:
        self._messages.append((content, self._compressed))
        self._wake()

    def end(self) -> None:
        """The caller sends nothing more."""
        self.no_more = True
        if self._body is not None or self._prefix:
            self.fail(grpc.StatusCode.INTERNAL, "the request ends inside a message.")
        self._wake()

    def fail(self, code: grpc.StatusCode, details: str, metadata: Metadata = ()) -> None:
        """Read nothing more of the caller; who reads next learns why."""
        self._failed = Status(code=code, details=details, metadata=metadata)
        self._body = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Content | Status | None:
        """The next message; the status to end with when it cannot be had; None when there are no more."""
        while not self._messages:
            if self._failed is not None:
                return self._failed
            if self.no_more:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        content, compressed = self._messages.popleft()
        size = len(content)
        self._held -= size
        self._limits.budget.release(size)
        self._repay(size + PREFIX_SIZE)
        if not compressed:
            return content
        try:
            return decompress(content, self.head.encoding, most_bytes=self._limits.most_bytes)
        except NotDecompressed as error:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in str(error) else grpc.StatusCode.INTERNAL
            return Status(code=code, details=str(error))

    def _repay(self, size: int) -> None:
        """Let the caller send as much again as was read."""
        ahead = min(size, self._advanced)
        self._advanced -= ahead
        self._owed += size - ahead
        if self._owed >= RECEIVE_WINDOW // 2 and not self.no_more:
            self._grant(self._owed)
            self._owed = 0

    def _grant(self, size: int) -> None:
        self.receive_window += size
        self._line.write(frames.window_update(self.number, size))

    # Sending.

    def send_head(self, metadata: Metadata) -> None:
        """Keep the caller's first metadata for the first frame."""
        self._head_block += block_of(metadata)

    def send_head_now(self) -> None:
        """Send it without waiting for a message."""
        if not self._head_sent:
            self._line.write(self._head())

    def _head(self) -> bytes:
        """The frame of headers before the first message; empty later on."""
        if self._head_sent:
            return b""
        self._head_sent = True
        block = RESPONSE_HEAD + self._head_block
        if self.response_encoding:
            block += block_of([("grpc-encoding", self.response_encoding)])
        return self._line.headers(self.number, 0, block)

    def send(self, content: bytes, *, last: bool = False) -> None:
        """Send a message, and that all is well after the `last` one."""
        if self.over:
            return
        if self.response_encoding and content:
            content = compress(content, self.response_encoding)
        prefix = _PREFIX.pack(1 if self.response_encoding and content else 0, len(content))
        size = PREFIX_SIZE + len(content)
        line = self._line
        if size <= min(self.send_window, line.send_window, line.frame_size) and not self._unsent and not line.paused:
            self.send_window -= size
            line.send_window -= size
            head = self._head() + frames.frame_header(size, frames.DATA, 0, self.number) + prefix
            end = line.headers(self.number, frames.END_STREAM, TRAILERS_OK) if last else b""
            line.write_parts([head, content, end])
            if last:
                self._over()
            return
        self.send_head_now()
        self._unsent += (prefix, memoryview(content))
        self._unsent_bytes += size
        self._trailers = TRAILERS_OK if last else None
        self.pump()

    def finish(self, status: Status) -> None:
        """End the call. Without a message before it, one frame of headers says it all."""
        if self.over or self._trailers is not None:
            return
        block = trailers(status.code.value[0], status.details, status.metadata)
        if not self._head_sent:
            block = RESPONSE_HEAD + self._head_block + block
            self._head_sent = True
        self._trailers = block
        self.pump()

    def refuse(self, block: bytes, words: str) -> None:
        """Answer what is no call."""
        self._head_sent = True
        self._line.write(self._line.headers(self.number, 0, block))
        self._line.write(frames.frame(frames.DATA, frames.END_STREAM, self.number, words.encode()[:1000]))
        self._over()

    def pump(self) -> bool:
        """Send what the windows allow; whether all is sent."""
        while self._unsent_bytes and not self._line.paused:
            size = min(self._unsent_bytes, self.send_window, self._line.send_window, self._line.frame_size)
            if size <= 0:
                return False
            self._send_frame(size)
        if self._unsent_bytes:
            return False
        if self._trailers is not None and not self.over:
            self._line.write(self._line.headers(self.number, frames.END_STREAM, self._trailers))
            self._over()
        return True

    def _send_frame(self, size: int) -> None:
        self.send_window -= size
        self._line.send_window -= size
        self._unsent_bytes -= size
        parts: list[bytes | memoryview] = [frames.frame_header(size, frames.DATA, 0, self.number)]
        while size:
            part = self._unsent.popleft()
            if len(part) > size:
                self._unsent.appendleft(memoryview(part)[size:])
                part = memoryview(part)[:size]
            parts.append(part)
            size -= len(part)
        self._line.write_parts(parts)
        if self._room is not None and self._unsent_bytes <= _MOST_UNSENT and not self._room.done():
            self._room.set_result(None)

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for the caller to take it."""
        return not self.over and (self._unsent_bytes > 0 or self._trailers is not None)

    async def drained(self) -> None:
        """Wait until there is room for another message."""
        while self._unsent_bytes > _MOST_UNSENT and not self.over:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    def _over(self) -> None:
        self.over = True
        self._line.ended(self)

    def abandon(self) -> None:
        """The caller is gone: forget what it sent and what is for it."""
        self.over = self.no_more = True
        self._unsent.clear()
        self._unsent_bytes = 0
        self._limits.budget.release(self._held)
        self._held = 0
        self._messages.clear()
        self._body = None
        self._wake()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
