"""What a peer's frames mean: calls begin, go on and end, windows change, questions are answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from inference_server.service.http2 import frames
from inference_server.service.http2.frames import ConnectionFailed, ErrorCode
from inference_server.service.http2.headers import HeadReader
from inference_server.service.http2.line import Line
from inference_server.service.http2.messages import MessageLimits
from inference_server.service.http2.patience import ConnectionLimits, Patience
from inference_server.service.http2.reading import LARGEST_CONTROL, FrameReader
from inference_server.service.http2.stream import Stream

# Bytes that a peer may send on all its streams before they are read.
WINDOW = 16 * 2**20
# Our question, whose answer tells that the peer knows that we leave.
LEAVING = b"leaving\0"


class Owner(Protocol):
    """The connection."""

    # Calls whose work has not ended, their streams gone or not.
    running: int

    def begin(self, stream: Stream) -> None:
        """The headers of a call have arrived."""

    def cancel(self, stream: Stream) -> None:
        """Its caller has gone away."""


class Session:
    """The state of one connection's protocol. What breaks it raises `ConnectionFailed`."""

    def __init__(
        self, owner: Owner, line: Line, *, patience: Patience, limits: ConnectionLimits, messages: MessageLimits, scratch: memoryview
    ) -> None:
        self._owner = owner
        self._line = line
        self._patience = patience
        self._limits = limits
        self._messages = messages
        self.reader = FrameReader(self, scratch)
        self._heads = HeadReader()
        self._receive_window = WINDOW
        self.last_stream = 0
        # Headers that go on in the next frame: their stream, flags and bytes.
        self._block: tuple[int, int, bytes] | None = None
        self._has_settings = False
        self._leaving = False
        # The last stream that is served after we said that we leave; None as long as all are.
        self.last_served: int | None = None

    @property
    def begun(self) -> object:
        """What the peer has begun and not ended; None when nothing."""
        if not self._has_settings:
            return "greeting"
        return self.reader.begun if self._block is None else ("headers", self._block[0])

    def data_begins(self, number: int, size: int, padding: int, *, is_last: bool) -> Stream | None:
        """Count the bytes against the windows; who takes them."""
        if self._block is not None:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "headers must go on in the next frame")
        stream = self._line.streams.get(number)
        if stream is None and self._was_never_opened(number):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "data of a stream that was never opened")
        self._receive_window -= size
        if self._receive_window < 0 or (stream is not None and stream.receive_window < size):
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "more was sent than the windows allow")
        if self._receive_window < WINDOW // 2:
            self._line.write_control(frames.window_update(0, WINDOW - self._receive_window))
            self._receive_window = WINDOW
        if stream is None or not (size - padding or is_last):
            self._patience.idle()
        else:
            self._patience.useful()
        if stream is None:
            return None
        if stream.no_more:
            self.reset(stream, ErrorCode.STREAM_CLOSED)
            return None
        stream.receive_window -= size
        if padding:
            stream.repay(padding)
        return stream

    def data_ends(self, stream: Stream | None, *, is_last: bool) -> None:
        """The caller may have said all."""
        if is_last and stream is not None and not stream.over:
            stream.end()

    def frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Do what a frame asks for; those of unknown types ask for nothing."""
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block[0]):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "headers must go on in the next frame")
        if kind == frames.HEADERS and self._has_settings:
            self._on_headers(flags, number, payload)
            return
        if not self._has_settings and kind != frames.SETTINGS:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the first frame must be the settings")
        frames.check_place(kind, number)
        handle = _HANDLERS.get(kind)
        if handle is None:
            self._patience.idle()
        else:
            handle(self, flags, number, payload)

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
        if len(block) > LARGEST_CONTROL:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, f"headers of more than {LARGEST_CONTROL} bytes")
        self._patience.idle()
        self._block = (number, first_flags, block)
        if flags & frames.END_HEADERS:
            self._block = None
            self._open(number, first_flags, block)

    def _open(self, number: int, flags: int, block: bytes) -> None:
        head = self._heads.read(block)  # also of a stream that is refused, for the next one's headers build on it
        if number % 2 == 0:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"a client cannot open stream {number}")
        if number <= self.last_stream:
            self._on_trailers(number, flags)
            return
        self.last_stream = number
        line = self._line
        if line.paused:
            line.check_unread()
        if self.last_served is not None:
            self._patience.idle()  # the peer was told, and tries this call elsewhere
            return
        if self._owner.running >= self._limits.most_streams or len(line.streams) >= self._limits.most_streams:
            self._refuse(number, ErrorCode.REFUSED_STREAM)
            return
        if head.malformed:
            self._patience.broken()
            self._refuse(number, ErrorCode.PROTOCOL_ERROR)
            return
        self._patience.useful()
        stream = Stream(line, number, head, send_window=line.stream_window, limits=self._messages)
        line.streams[number] = stream
        if flags & frames.END_STREAM:
            stream.end()
        self._owner.begin(stream)

    def _on_trailers(self, number: int, flags: int) -> None:
        """Trailers, which no method reads, end a request; those of a call that was answered before mean nothing."""
        stream = self._line.streams.get(number)
        if stream is None:
            self._patience.idle()
        elif stream.no_more:
            self.reset(stream, ErrorCode.STREAM_CLOSED)
        elif not flags & frames.END_STREAM:
            self.reset(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            stream.end()

    def _was_never_opened(self, number: int) -> bool:
        return number > self.last_stream or number % 2 == 0

    def _refuse(self, number: int, code: ErrorCode) -> None:
        self._patience.idle()
        self._line.write_control(frames.reset(number, code))

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End one call for what its caller does, or does not."""
        self._patience.broken()
        self.reader.forget(stream)
        stream.reset(code)
        self._owner.cancel(stream)

    def drop(self, stream: Stream) -> None:
        """The caller of a stream has gone away."""
        self.reader.forget(stream)
        self._line.forget(stream)
        self._owner.cancel(stream)

    def drop_all(self) -> None:
        """All of them have."""
        for stream in list(self._line.streams.values()):
            self.drop(stream)

    # The peer's other frames.

    def _on_reset(self, flags: int, number: int, payload: bytes) -> None:
        frames.read_number(payload)
        if self._was_never_opened(number):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the end of a stream that was never opened")
        self._patience.idle()
        stream = self._line.streams.get(number)
        if stream is not None:
            self.drop(stream)

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        self._patience.idle()
        if flags & frames.ACK:
            if payload:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "the acknowledgement of settings has no content")
            return
        self._has_settings = True
        self._line.apply(dict(frames.read_settings(payload)))
        self._line.write_control(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._line.pump()

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a ping has eight bytes")
        if not flags & frames.ACK:
            self._patience.pinged()
            self._line.write_control(frames.frame(frames.PING, frames.ACK, 0, payload))
            return
        self._patience.idle()
        if payload == LEAVING:
            self.stop_serving()

    def _on_window_update(self, flags: int, number: int, payload: bytes) -> None:
        increment = frames.read_number(payload) & frames.LARGEST_WINDOW
        self._patience.idle()
        if number == 0:
            self._line.widen(increment)
            return
        if self._was_never_opened(number):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a window of a stream that was never opened")
        stream = self._line.streams.get(number)
        if stream is None:
            return
        stream.send_window += increment
        if not increment or stream.send_window > frames.LARGEST_WINDOW:
            self.reset(stream, ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR)
            return
        stream.pump()

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        self._patience.idle()
        if len(payload) != 5:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "a priority has five bytes")

    def _on_push(self, flags: int, number: int, payload: bytes) -> None:
        raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    # How it ends.

    def announce_leaving(self) -> None:
        """Tell the peer to open no more streams here; those that it opens until it knows are served. Source: RFC 9113, section 6.8."""
        question = frames.frame(frames.PING, 0, 0, LEAVING)
        self._leaving = True
        self._line.write_control(frames.go_away(frames.LARGEST_WINDOW, ErrorCode.NO_ERROR) + question)

    def stop_serving(self) -> None:
        """Serve the streams that there are, and no more."""
        if self._leaving and self.last_served is None:
            self.last_served = self.last_stream
            self._line.flush()
            self._line.write_control(frames.go_away(self.last_stream, ErrorCode.NO_ERROR))


_HANDLERS: Mapping[int, Callable[[Session, int, int, bytes], None]] = {
    frames.CONTINUATION: Session._on_continuation,
    frames.RST_STREAM: Session._on_reset,
    frames.SETTINGS: Session._on_settings,
    frames.PING: Session._on_ping,
    frames.WINDOW_UPDATE: Session._on_window_update,
    frames.PRIORITY: Session._on_priority,
    frames.PUSH_PROMISE: Session._on_push,
}
