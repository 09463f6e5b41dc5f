"""One connection: asyncio's events, what time does to it, and how it ends. What the peer's frames mean is in `session`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import structlog

from inference_server.service.http2 import frames
from inference_server.service.http2.frames import ConnectionFailed, ErrorCode
from inference_server.service.http2.headers import LARGEST_HEADER_LIST
from inference_server.service.http2.incoming import RECEIVE_WINDOW
from inference_server.service.http2.line import Line
from inference_server.service.http2.messages import MessageLimits
from inference_server.service.http2.patience import ConnectionLimits, Patience
from inference_server.service.http2.peers import address_of, identity_of, refusal_of_tls
from inference_server.service.http2.reading import LARGEST_DATA
from inference_server.service.http2.session import WINDOW, Session
from inference_server.service.http2.stream import Stream

# Seconds for a peer to read why its connection ends.
_LAST_SECONDS = 2.0

_log = structlog.get_logger()


class Calls(Protocol):
    """What becomes of streams and connections."""

    def begin(self, stream: Stream, connection: Connection) -> None:
        """The headers of a call have arrived."""

    def cancel(self, stream: Stream) -> None:
        """Its caller has gone away."""

    def opened(self, connection: Connection) -> None:
        """A peer has connected."""

    def closed(self, connection: Connection) -> None:
        """It is gone; the connection's `reason` tells why."""


class Connection(asyncio.BufferedProtocol):
    """Speaks HTTP/2 with one peer, as a server. Nothing that the peer does raises into the event loop."""

    _transport: Any
    _line: Line
    _session: Session
    # The peer's address, as ipv4:address:port.
    peer: str = ""

    def __init__(self, calls: Calls, limits: ConnectionLimits, messages: MessageLimits, scratch: memoryview) -> None:
        """`scratch`: memory of the event loop's own, which bytes are received into."""
        self._calls = calls
        self._limits = limits
        self._messages = messages
        self._scratch = scratch
        self._loop = asyncio.get_running_loop()
        self._patience = Patience(limits, self._loop.time())
        # Calls whose work has not ended, their streams gone or not.
        self.running = 0
        # Why the connection ended, as it is counted.
        self.reason = "peer"
        # When we told that we leave, and when the connection ends although the peer has not read everything.
        self._leaving: float | None = None
        self._closing: float | None = None

    # Of asyncio.

    def connection_made(self, transport: Any) -> None:
        """Tell our settings."""
        self._transport = transport
        self.peer = address_of(transport.get_extra_info("peername"))
        self._line = Line(transport, self._patience, self._limits.most_unread_bytes)
        self._session = Session(
            self, self._line, patience=self._patience, limits=self._limits, messages=self._messages, scratch=self._scratch
        )
        self._calls.opened(self)
        ours = {
            frames.MAX_CONCURRENT_STREAMS: self._limits.most_streams,
            frames.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
            frames.MAX_FRAME_SIZE: LARGEST_DATA,
            frames.MAX_HEADER_LIST_SIZE: LARGEST_HEADER_LIST,
        }
        transport.write(frames.settings(ours) + frames.window_update(0, WINDOW - frames.DEFAULT_WINDOW))
        refusal = refusal_of_tls(transport)
        if refusal:
            self._fail(ErrorCode.INADEQUATE_SECURITY, refusal)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._session.reader.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        self._patience.heard = self._loop.time()
        try:
            self._session.reader.received(nbytes)
        except ConnectionFailed as error:
            self._fail(error.code, str(error))
        except Exception:
            self._break()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone, and so are those who wait for its calls."""
        self._session.reader.stop()
        self._session.drop_all()
        self._calls.closed(self)

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._line.paused = True

    def resume_writing(self) -> None:
        """It does again."""
        self._line.paused = False
        self._guarded(self._line.pump)

    def eof_received(self) -> bool:
        """The peer sends nothing more: it is gone."""
        return False

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except ConnectionFailed as error:
            self._fail(error.code, str(error))
        except Exception:
            self._break()

    def _break(self) -> None:
        _log.exception("connection_broken", peer=self.peer)
        self._fail(ErrorCode.INTERNAL_ERROR, "the server failed on this connection; its log tells why.")

    # Of the session.

    def begin(self, stream: Stream) -> None:
        """The headers of a call have arrived."""
        self._calls.begin(stream, self)

    def cancel(self, stream: Stream) -> None:
        """Its caller has gone away."""
        self._calls.cancel(stream)

    # Time.

    def look(self, now: float) -> None:
        """Called every second or so: end what takes too long."""
        self._guarded(lambda: self._look(now))

    def _look(self, now: float) -> None:
        if self._closing is not None:
            if now > self._closing:
                self._transport.abort()
            return
        patience = self._patience
        if patience.is_slow(self._session.begun, now):
            self._fail(ErrorCode.ENHANCE_YOUR_CALM, "what was begun did not come to its end in time", "slow_request")
        elif patience.is_gone(now):
            self._log_end("keepalive", "the peer does not answer")
            self.abort("keepalive")
        elif patience.must_ask(now):
            self._line.write_control(frames.frame(frames.PING, 0, 0, bytes(8)))
        self._look_at_streams(now)
        self._look_at_age(now)

    def _look_at_streams(self, now: float) -> None:
        for stream in list(self._line.streams.values()):
            if stream.is_slow(now, self._limits.receive_seconds):
                stream.give_up()
            elif stream.is_stuck(now, self._limits.send_seconds):
                _log.info("call_given_up", peer=self.peer, reason="its answer is not taken")
                self._session.reset(stream, ErrorCode.CANCEL)

    def _look_at_age(self, now: float) -> None:
        session = self._session
        calls = len(self._line.streams) + self.running
        if self._leaving is None:
            # A peer that has begun something is slow, not idle.
            busy = calls > 0 or session.begun is not None
            reason = self._patience.must_leave(now, last_call=session.last_stream, busy=busy)
            if reason:
                self.reason = reason
                self.leave()
            return
        if session.last_served is None and now - self._leaving > self._limits.answer_seconds:
            session.stop_serving()
        if session.last_served is not None and not calls and not self._line.has_unsent:
            self._close()

    # How it ends.

    def leave(self) -> None:
        """Let calls end, and the peer open others elsewhere."""
        if self._leaving is None and self._closing is None:
            self._leaving = self._loop.time()
            self._guarded(self._session.announce_leaving)

    def serve_no_more(self) -> None:
        """Serve the calls that there are, and no more, whether the peer knows it or not."""
        self.leave()
        self._guarded(self._session.stop_serving)

    def _fail(self, code: ErrorCode, words: str, reason: str = "") -> None:
        """End the connection and tell the peer why."""
        if self._closing is not None:
            return
        self.reason = reason or code.name.lower()
        self._log_end(self.reason, words)
        self._session.reader.stop()
        self._line.flush()
        self._transport.write(frames.go_away(self._session.last_stream, code, words))
        self._session.drop_all()
        self._close()

    def _log_end(self, reason: str, words: str) -> None:
        _log.info("connection_ended", peer=self.peer, reason=reason, words=words)

    def close(self) -> None:
        """End when what was written is sent."""
        if self._closing is None:
            self.reason = "shutdown"
            self._line.flush()
            self._close()

    def _close(self) -> None:
        self._closing = self._loop.time() + _LAST_SECONDS
        self._transport.close()

    def abort(self, reason: str = "shutdown") -> None:
        """End now."""
        self.reason = reason
        self._transport.abort()

    @property
    def has_unsent(self) -> bool:
        """Whether an answer waits for the peer to take it."""
        return self._line.has_unsent

    def identity(self) -> Mapping[str, Iterable[bytes]]:
        """What the peer's certificate says, in gRPC's words; empty without one."""
        return identity_of(self._transport.get_extra_info("peercert"))
