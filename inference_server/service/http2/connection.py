"""One connection: frames in, streams, frames out, and the bounds on what a peer may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from inference_server.service.http2 import frames
from inference_server.service.http2.frames import ConnectionFailed, ErrorCode
from inference_server.service.http2.headers import LARGEST_HEADER_LIST, NO_TABLE, HeadReader
from inference_server.service.http2.stream import RECEIVE_WINDOW, MessageLimits, Stream

# Bytes that a peer may send on all its streams before they are read; frames as large are taken.
_WINDOW = 16 * 2**20
_FRAME_SIZE = 2**20
# Of frames other than DATA, which are read whole; and of one block of headers, continued frames included.
_LARGEST_CONTROL = 32 * 1024
_LARGEST_BLOCK = 64 * 1024
_BUFFER_SIZE = 64 * 1024
# Of a frame that is received straight into its message.
_LARGE = 16 * 1024

# Frames in a row that bring nothing: more are an attack.
_MOST_IDLE_FRAMES = 10_000
# Bytes of answers to such frames that a peer may leave unread.
_MOST_UNREAD = 2**20
# Pings that come sooner than allowed.
_MOST_STRIKES = 2

# Seconds for the first bytes to come, and for a question whether the peer is there to be answered.
_GREETING_SECONDS = 20.0
_ANSWER_SECONDS = 20.0

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """What one connection may do."""

    # Calls at a time; a peer keeps more of them back.
    most_streams: int
    # Seconds of silence after which the peer is asked whether it is there.
    keepalive_seconds: float
    # Shortest time between a peer's own such questions, in seconds.
    shortest_ping_seconds: float


class Calls(Protocol):
    """What becomes of streams."""

    def begin(self, stream: Stream, connection: Connection) -> None:
        """The headers of a call have arrived."""

    def cancel(self, stream: Stream) -> None:
        """Its caller has gone away."""

    def opened(self, connection: Connection) -> None:
        """A peer has connected."""

    def closed(self, connection: Connection) -> None:
        """It is gone."""


class Connection(asyncio.BufferedProtocol):
    """Speaks HTTP/2 with one peer, as a server."""

    def __init__(self, calls: Calls, limits: ConnectionLimits, messages: MessageLimits) -> None:
        self._calls = calls
        self._limits = limits
        self._messages = messages
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._reader = HeadReader()
        self._handlers: Mapping[int, Callable[[int, int, bytes], None]] = {
            frames.HEADERS: self._on_headers,
            frames.CONTINUATION: self._on_continuation,
            frames.RST_STREAM: self._on_reset,
            frames.SETTINGS: self._on_settings,
            frames.PING: self._on_ping,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.PUSH_PROMISE: self._on_push,
        }
        # The peer's address, as ipv4:address:port.
        self.peer = ""
        self.streams: dict[int, Stream] = {}
        # Calls whose work has not ended, their streams gone or not.
        self.running = 0
        self.send_window = frames.DEFAULT_WINDOW
        self.frame_size = frames.DEFAULT_FRAME_SIZE
        self.paused = False
        self._stream_window = frames.DEFAULT_WINDOW
        self._receive_window = _WINDOW
        self._last_stream = 0
        self._greeted = self._told_table = False
        self._failed = False
        # What was received and not yet understood lies between the two.
        self._buffer = bytearray(_BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._at = self._end = 0
        # The DATA frame that is arriving: its stream, what is left of its content and of its padding, and whether it is the last one.
        self._data_stream: Stream | None = None
        self._left = self._padding = 0
        self._is_last = False
        # The rest of a message, where the socket writes straight into.
        self._direct: memoryview | None = None
        # Headers that go on in the next frame: their stream, flags and bytes.
        self._block: tuple[int, int, bytes] | None = None
        self._idle_frames = 0
        self._heard = self._pinged = self._loop.time()
        self._strikes = 0
        self._sent_since_ping = False
        # What is to be sent when the turn of the event loop ends.
        self._outgoing: list[bytes | memoryview] = []
        self._outgoing_bytes = 0
        self._watch: asyncio.TimerHandle | None = None

    # Of asyncio.

    def connection_made(self, transport: Any) -> None:
        """Tell our settings."""
        self._transport = transport
        self.peer = _address(transport.get_extra_info("peername"))
        transport.set_write_buffer_limits(high=2**20)
        ours = {
            frames.MAX_CONCURRENT_STREAMS: self._limits.most_streams,
            frames.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            frames.MAX_FRAME_SIZE: _FRAME_SIZE,
            frames.MAX_HEADER_LIST_SIZE: LARGEST_HEADER_LIST,
        }
        transport.write(frames.settings(ours) + frames.window_update(0, _WINDOW - frames.DEFAULT_WINDOW))
        self._watch = self._loop.call_later(_GREETING_SECONDS, self._expect_greeting)
        self._calls.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._view[self._end :] if self._direct is None else self._direct

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        self._heard = self._loop.time()
        try:
            if self._direct is not None:
                self._received_directly(nbytes)
            else:
                self._end += nbytes
                self._read_frames()
        except ConnectionFailed as error:
            self.fail(error.code, str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone, and so are those who wait for its calls."""
        if self._watch is not None:
            self._watch.cancel()
        for stream in list(self.streams.values()):
            self._drop(stream)
        self._calls.closed(self)

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self.paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self.paused = False
        self._pump()

    def eof_received(self) -> bool:
        """The peer sends nothing more: it is gone."""
        return False

    # Frames.

    def _read_frames(self) -> None:
        at, end = self._at, self._end
        if not self._greeted:
            at = self._greet(at, end)
        while self._greeted and not self._failed:
            after = self._read_frame(at, end)
            if after is None:
                break
            at = after
        self._keep(at, end)

    def _read_frame(self, at: int, end: int) -> int | None:
        """Read a frame, or what has come of its data; where the next begins, None when more bytes are needed."""
        if self._left or self._padding:
            return self._read_data(at, end) if at < end else None
        body = at + frames.HEADER_SIZE
        if body > end:
            return None
        size, kind, flags, number = frames.read_frame_header(self._view, at)
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block[0]):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "headers must go on in the next frame")
        if kind == frames.DATA:
            return self._begin_data(size, flags, number, body, end)
        if size > _LARGEST_CONTROL:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, f"a frame of type {kind} has {size} bytes; at most {_LARGEST_CONTROL}")
        after = body + size
        if after > end:
            return None
        handle = self._handlers.get(kind)
        if handle is None:
            self._count_idle()
        else:
            handle(flags, number, bytes(self._view[body:after]))
        return after

    def _keep(self, at: int, end: int) -> None:
        """Move what is not yet understood to the front."""
        if at == end:
            self._at = self._end = 0
            return
        if at:
            self._view[: end - at] = bytes(self._view[at:end])
        self._at, self._end = 0, end - at

    def _greet(self, at: int, end: int) -> int:
        preface = frames.PREFACE
        given = bytes(self._view[at : min(end, at + len(preface))])
        if not preface.startswith(given):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "this port speaks HTTP/2 without an upgrade from HTTP/1.1")
        if len(given) < len(preface):
            return at
        self._greeted = True
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.call_later(self._limits.keepalive_seconds, self._ask)
        return at + len(preface)

    def _begin_data(self, size: int, flags: int, number: int, at: int, end: int) -> int | None:
        """Take the header of a DATA frame; where its content begins, None when its first byte has not come."""
        if size > _FRAME_SIZE:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes; at most {_FRAME_SIZE}")
        padding = 0
        content = size
        if flags & frames.PADDED:
            if at == end:
                return None
            padding = self._view[at]
            at += 1
            content = size - 1 - padding
            if content < 0:
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the padding is longer than its frame")
        stream = self._stream_of_data(number)
        self._receive_window -= size
        if self._receive_window < 0 or (stream is not None and stream.receive_window < size):
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "more was sent than the windows allow")
        if stream is not None:
            stream.receive_window -= size
        if self._receive_window < _WINDOW // 2:
            self.write_control(frames.window_update(0, _WINDOW - self._receive_window))
            self._receive_window = _WINDOW
        is_last = bool(flags & frames.END_STREAM)
        if content or is_last:
            self._idle_frames = 0
        else:
            self._count_idle()
        self._data_stream, self._left, self._padding, self._is_last = stream, content, padding, is_last
        if not content and not padding:
            self._end_data()
        return at

    def _stream_of_data(self, number: int) -> Stream | None:
        stream = self.streams.get(number)
        if stream is None and (number > self._last_stream or number % 2 == 0):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "data of a stream that was never opened")
        if stream is not None and stream.no_more:
            raise ConnectionFailed(ErrorCode.STREAM_CLOSED, "data after the end of a stream")
        return stream

    def _read_data(self, at: int, end: int) -> int:
        taken = min(self._left, end - at)
        if taken and self._data_stream is not None:
            self._data_stream.feed(self._view[at : at + taken])
        self._left -= taken
        at += taken
        if self._left:
            space = self._data_stream.space() if self._data_stream is not None else None
            if space is not None and min(self._left, len(space)) >= _LARGE:
                self._direct = space[: self._left]
            return at
        skipped = min(self._padding, end - at)
        self._padding -= skipped
        if not self._padding:
            self._end_data()
        return at + skipped

    def _received_directly(self, size: int) -> None:
        direct, stream = self._direct, self._data_stream
        assert direct is not None  # noqa: S101
        self._left -= size
        rest = direct[size:]
        self._direct = rest if len(rest) else None
        if stream is not None:
            stream.filled(size)
        if self._direct is None:
            self._read_frames()

    def _end_data(self) -> None:
        stream, self._data_stream = self._data_stream, None
        self._left = self._padding = 0
        if self._is_last and stream is not None:
            stream.end()

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        content = frames.unpadded(payload, flags)
        if flags & frames.END_HEADERS:
            self._open(number, flags, content)
        else:
            self._block = (number, flags, content)

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "headers go on that never began")
        _, first_flags, block = self._block
        block += payload
        if len(block) > _LARGEST_BLOCK:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, f"headers of more than {_LARGEST_BLOCK} bytes")
        self._count_idle()
        self._block = (number, first_flags, block)
        if flags & frames.END_HEADERS:
            self._block = None
            self._open(number, first_flags, block)

    def _open(self, number: int, flags: int, block: bytes) -> None:
        head = self._reader.read(block)  # also of a stream that is refused, for the next one's headers build on it
        known = self.streams.get(number)
        if known is not None:
            if known.no_more or not flags & frames.END_STREAM:
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a stream was opened twice")
            known.end()  # trailers, which no method reads
            return
        if number <= self._last_stream and number % 2:
            return  # trailers of a call that was answered before
        if number % 2 == 0:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"a client cannot open stream {number}")
        self._last_stream = number
        self._idle_frames = 0
        if self.running >= self._limits.most_streams:
            self.write_control(frames.reset(number, ErrorCode.REFUSED_STREAM))
            return
        stream = Stream(self, number, head, send_window=self._stream_window, limits=self._messages)
        self.streams[number] = stream
        if flags & frames.END_STREAM:
            stream.end()
        self._calls.begin(stream, self)

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        frames.read_number(payload)
        if number == 0 or number > self._last_stream:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the end of a stream that was never opened")
        self._count_idle()
        stream = self.streams.get(number)
        if stream is not None:
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        self.streams.pop(stream.number, None)
        if not stream.over:
            stream.abandon()
            self._calls.cancel(stream)

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        self._count_idle()
        if flags & frames.ACK:
            return
        for key, value in frames.read_settings(payload):
            if key == frames.INITIAL_WINDOW_SIZE:
                if value > frames.LARGEST_WINDOW:
                    raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window is too large")
                change, self._stream_window = value - self._stream_window, value
                for stream in self.streams.values():
                    stream.send_window += change
            elif key == frames.MAX_FRAME_SIZE:
                if not frames.DEFAULT_FRAME_SIZE <= value <= frames.LARGEST_FRAME_SIZE:
                    raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"frames of at most {value} bytes cannot be asked for")
                self.frame_size = value
        self.write_control(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._pump()

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a ping has eight bytes")
        self._count_idle()
        if flags & frames.ACK:
            return
        too_soon = not self._sent_since_ping and self._heard - self._pinged < self._limits.shortest_ping_seconds
        self._strikes = self._strikes + 1 if too_soon else 0
        self._pinged, self._sent_since_ping = self._heard, False
        if self._strikes > _MOST_STRIKES:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")
        self.write_control(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_window_update(self, flags: int, number: int, payload: bytes) -> None:
        increment = frames.read_number(payload) & frames.LARGEST_WINDOW
        if number == 0:
            self.send_window += increment
            if not increment or self.send_window > frames.LARGEST_WINDOW:
                raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window grows by nothing or too much")
            self._pump()
            return
        if number > self._last_stream:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a window of a stream that was never opened")
        stream = self.streams.get(number)
        if stream is None:
            return
        stream.send_window += increment
        if not increment or stream.send_window > frames.LARGEST_WINDOW:
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "a window grows by nothing or too much")
        stream.pump()

    def _on_push(self, flags: int, number: int, payload: bytes) -> None:
        raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _count_idle(self) -> None:
        self._idle_frames += 1
        if self._idle_frames > _MOST_IDLE_FRAMES:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    # What goes out.

    def write(self, content: bytes) -> None:
        """Send bytes of headers or messages."""
        self.write_parts([content])

    def headers(self, stream: int, flags: int, block: bytes) -> bytes:
        """A frame of headers. The first one says that we keep none of them, so that no bound of the peer's can be passed."""
        if not self._told_table:
            self._told_table = True
            block = NO_TABLE + block
        return frames.frame(frames.HEADERS, flags | frames.END_HEADERS, stream, block)

    def write_parts(self, parts: list[bytes | memoryview]) -> None:
        """Send bytes that lie apart. Those of many streams go out together when this turn of the event loop ends."""
        self._sent_since_ping = True
        if not self._outgoing and len(self.streams) > 1:
            self._loop.call_soon(self._flush)
        self._outgoing += parts
        self._outgoing_bytes += sum(map(len, parts))
        if self._outgoing_bytes > _LARGE or len(self.streams) <= 1:
            self._flush()

    def _flush(self) -> None:
        """Small parts are joined, for they are cheaper to copy than to send."""
        parts, size = self._outgoing, self._outgoing_bytes
        self._outgoing, self._outgoing_bytes = [], 0
        if not parts or self._transport.is_closing():
            return
        if size <= 2 * _LARGE:
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)

    def write_control(self, content: bytes) -> None:
        """Answer the peer's frames. Raises `ConnectionFailed` when it asks on and on and reads no answers."""
        if self.paused and self._transport.get_write_buffer_size() > 2 * _MOST_UNREAD:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "the answers are not read")
        self._transport.write(content)

    def _pump(self) -> None:
        """Send what waits for windows, the streams in turns."""
        if self.paused or self.send_window <= 0:
            return
        waiting = [stream for stream in self.streams.values() if stream.has_unsent]
        for stream in waiting:
            stream.pump()
        for stream in waiting:  # who was served first waits longest the next time
            if stream.number in self.streams:
                self.streams[stream.number] = self.streams.pop(stream.number)

    def ended(self, stream: Stream) -> None:
        """The stream's last frame was sent; what its caller still sends is not read."""
        if self.streams.pop(stream.number, None) is not None and not stream.no_more:
            self.write(frames.reset(stream.number, ErrorCode.NO_ERROR))
        stream.abandon()

    # How it ends.

    def _expect_greeting(self) -> None:
        _log.info("connection_refused", peer=self.peer, reason="nothing was said")
        self.abort()

    def _ask(self) -> None:
        """Ask a silent peer whether it is there."""
        silent = self._loop.time() - self._heard
        if silent < self._limits.keepalive_seconds:
            self._watch = self._loop.call_later(self._limits.keepalive_seconds - silent, self._ask)
            return
        self._transport.write(frames.frame(frames.PING, 0, 0, bytes(8)))
        self._watch = self._loop.call_later(_ANSWER_SECONDS, self._check_answer, self._heard)

    def _check_answer(self, heard: float) -> None:
        if self._heard > heard:
            self._watch = self._loop.call_later(self._limits.keepalive_seconds, self._ask)
            return
        _log.info("connection_lost", peer=self.peer, reason="keepalive was not answered")
        self.abort()

    def fail(self, code: ErrorCode, reason: str) -> None:
        """End the connection and tell the peer why."""
        self._failed = True
        self._direct = None
        _log.info("connection_failed", peer=self.peer, code=code.name, reason=reason)
        self._flush()
        self._transport.write(frames.go_away(self._last_stream, code, reason))
        self._transport.close()

    def go_away(self) -> None:
        """Tell the peer to open no more streams here."""
        self._transport.write(frames.go_away(self._last_stream, ErrorCode.NO_ERROR))

    def close(self) -> None:
        """End when what was written is sent."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """End now."""
        self._transport.abort()

    @property
    def has_unsent(self) -> bool:
        """Whether a response waits for the peer to take it."""
        return (
            bool(self._outgoing)
            or self._transport.get_write_buffer_size() > 0
            or any(stream.has_unsent for stream in self.streams.values())
        )

    def identity(self) -> Mapping[str, Iterable[bytes]]:
        """What the peer's certificate says, in gRPC's words; empty without one."""
        certificate = self._transport.get_extra_info("peercert") or {}
        subject = dict(pair for part in certificate.get("subject", ()) for pair in part)
        names = [value for _, value in certificate.get("subjectAltName", ())]
        found = {"x509_common_name": [subject.get("commonName")] if "commonName" in subject else [], "x509_subject_alternative_name": names}
        return {key: [str(value).encode() for value in values] for key, values in found.items() if values}


def _address(name: Any) -> str:
    if not isinstance(name, tuple):
        return "unix:"
    return f"ipv4:{name[0]}:{name[1]}" if len(name) == 2 else f"ipv6:[{name[0]}]:{name[1]}"
