"""What goes out on one connection: its windows, its streams in turns, and small frames together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from inference_server.service.http2 import frames
from inference_server.service.http2.blocks import NO_TABLE
from inference_server.service.http2.frames import ConnectionFailed, ErrorCode
from inference_server.service.http2.patience import Patience
from inference_server.service.http2.stream import Stream

# Bytes up to which parts are joined with others before they are sent.
_SMALL = 16 * 1024
# Bytes that the socket may have to itself before writers wait, if as many may be left unread.
_HIGH_WATER = 2**20
# Our frames are not larger, whatever the peer takes: streams take turns by frames.
_LARGEST_FRAME = 2**20


class Line:
    """The sending side of a connection, with the streams that send on it."""

    def __init__(self, transport: Any, patience: Patience, most_unread: int) -> None:
        """`most_unread`: bytes of answers that the peer may leave unread and still ask for more."""
        self._transport = transport
        # A part of a message was sent.
        self.sent = patience.sent
        self._loop = asyncio.get_running_loop()
        self._most_unread = most_unread
        transport.set_write_buffer_limits(high=min(_HIGH_WATER, most_unread // 2))
        self.streams: dict[int, Stream] = {}
        self.send_window = frames.DEFAULT_WINDOW
        self.stream_window = frames.DEFAULT_WINDOW
        self.frame_size = frames.DEFAULT_FRAME_SIZE
        self.paused = False
        self._told_table = False
        # Streams that have more to send than may be sent now, whose turn is next first.
        self._waiting: dict[int, Stream] = {}
        # What is to be sent when the turn of the event loop ends.
        self._outgoing: list[bytes | memoryview] = []
        self._outgoing_bytes = 0

    # What streams send.

    def write(self, *parts: bytes | memoryview) -> None:
        """Send frames of a stream. Those of many streams go out together when this turn of the event loop ends."""
        if not self._outgoing and len(self.streams) > 1:
            self._loop.call_soon(self.flush)
        self._outgoing += parts
        self._outgoing_bytes += sum(map(len, parts))
        if self._outgoing_bytes > _SMALL or len(self.streams) <= 1:
            self.flush()

    def flush(self) -> None:
        """Send what waits. Small parts are joined, for they are cheaper to copy than to send."""
        parts, size = self._outgoing, self._outgoing_bytes
        self._outgoing, self._outgoing_bytes = [], 0
        if not parts or self._transport.is_closing():
            return
        if size <= 2 * _SMALL:
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)

    def headers(self, stream: int, flags: int, block: bytes) -> bytes:
        """The frames of headers. The first ones say that we keep none of them, so that no bound of the peer's can be passed."""
        if not self._told_table:
            self._told_table = True
            block = NO_TABLE + block
        size = self.frame_size
        if len(block) <= size:
            return frames.frame(frames.HEADERS, flags | frames.END_HEADERS, stream, block)
        written = frames.frame(frames.HEADERS, flags, stream, block[:size])
        for at in range(size, len(block), size):
            last = frames.END_HEADERS if at + size >= len(block) else 0
            written += frames.frame(frames.CONTINUATION, last, stream, block[at : at + size])
        return written

    def ended(self, stream: Stream) -> None:
        """The stream's last frame was sent; what its caller still sends is not read."""
        if self.streams.pop(stream.number, None) is not None and not stream.no_more:
            self.write(frames.reset(stream.number, ErrorCode.NO_ERROR))
        self.forget(stream)

    def forget(self, stream: Stream) -> None:
        """Nobody sends or reads on a stream any more."""
        self.streams.pop(stream.number, None)
        self._waiting.pop(stream.number, None)
        stream.abandon()

    # What the connection sends.

    def write_control(self, content: bytes) -> None:
        """Answer the peer's frames. Raises `ConnectionFailed` when it asks on and on and reads no answers."""
        if self._transport.is_closing():
            return
        self.check_unread()
        self._transport.write(content)

    def check_unread(self) -> None:
        """Raise `ConnectionFailed` when too much of what was answered is not read."""
        if self.paused and self._transport.get_write_buffer_size() > self._most_unread:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "the answers are not read")

    @property
    def has_unsent(self) -> bool:
        """Whether an answer waits for the peer to take it."""
        waiting = self._outgoing or self._transport.get_write_buffer_size() > 0
        return bool(waiting) or any(stream.has_unsent for stream in self._waiting.values())

    # Windows.

    def apply(self, settings: Mapping[int, int]) -> None:
        """Take the peer's settings. Raises `ConnectionFailed`."""
        window = settings.get(frames.INITIAL_WINDOW_SIZE, self.stream_window)
        change, self.stream_window = window - self.stream_window, window
        for stream in self.streams.values() if change else ():
            stream.send_window += change
            if stream.send_window > frames.LARGEST_WINDOW:
                raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "the new window makes a stream's too large")
        self.frame_size = min(settings.get(frames.MAX_FRAME_SIZE, self.frame_size), _LARGEST_FRAME)

    def widen(self, increment: int) -> None:
        """The peer takes so many bytes more. Raises `ConnectionFailed`."""
        if not increment:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a window grows by nothing")
        self.send_window += increment
        if self.send_window > frames.LARGEST_WINDOW:
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window grows too much")
        self.pump()

    def wait(self, stream: Stream) -> None:
        """A stream has more to send than the windows or the socket allow."""
        self._waiting.setdefault(stream.number, stream)

    def pump(self) -> None:
        """Send what waits: a frame of each stream in turn. Who was served waits longest the next time."""
        turns = deque(self._waiting.values())
        while turns and not self.paused:
            stream = turns.popleft()
            goes_on = stream.pump_once()
            if not stream.has_unsent:
                self._waiting.pop(stream.number, None)
            elif goes_on:
                turns.append(stream)
                self._waiting[stream.number] = self._waiting.pop(stream.number)
