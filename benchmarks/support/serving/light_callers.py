"""Callers of one gRPC method that cost next to nothing: on the cores of the server they would take from it what they measure.

A call takes 10 to 60 µs of the caller's processor here, 250 through grpc.aio. They speak as much of HTTP/2 (RFC 9113) as a load needs:
equal requests, many at a time on each of a few connections, within the server's windows. Answers are counted and thrown away.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

PATH = "/inference.GRPCInferenceService/ModelInfer"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5
_WIDEST = 2**31 - 1
_NARROWEST = 2**16 - 1
# As grpc's clients take.
_LARGEST_FRAME = 2**22
_RECEIVED_AT_ONCE = 2**20
_HEAD = 9
# Seconds without any byte after which the server is taken for dead.
_SILENCE = 120.0

# Told how many seconds a call took; whether its caller makes another one.
Answered = Callable[[float], bool]


class CallFailed(RuntimeError):
    """A call had no message for an answer, or its connection ended."""


def call_over_and_over(address: str, request: bytes, *, callers: Iterable[int], answered: Answered) -> None:
    """Send the request over and over until no caller makes another call. Raises `CallFailed`.

    `callers`: how many callers each connection has.
    """
    message = b"\0" + len(request).to_bytes(4, "big") + request
    with selectors.DefaultSelector() as selector:
        connections = [_Connection(address, message, answered) for _ in callers]
        try:
            for connection, count in zip(connections, callers, strict=True):
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                for _ in range(count):
                    connection.call()
            while any(connection.is_busy for connection in connections):
                for connection in connections:
                    wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.flush() else 0)
                    if selector.get_key(connection.socket).events != wanted:
                        selector.modify(connection.socket, wanted, connection)
                ready = selector.select(_SILENCE)
                if not ready:
                    raise CallFailed(f"{address} has said nothing for {_SILENCE:.0f} s")
                for key, events in ready:
                    if events & selectors.EVENT_READ:
                        key.data.receive()
        finally:
            for connection in connections:
                connection.socket.close()


class _Connection:
    def __init__(self, address: str, message: bytes, answered: Answered) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._answered = answered
        self._message = memoryview(message)
        self._headers = _headers(address)
        self._next_stream = 1
        # When each call began, and those among them that have a part of their answer.
        self._begun: dict[int, float] = {}
        self._told: set[int] = set()
        # What the server lets us send: in all, on a new stream, in a frame; and the streams that wait for room, with what each has left.
        self._window, self._stream_window, self._largest_frame = _NARROWEST, _NARROWEST, 2**14
        self._unsent: deque[tuple[int, memoryview]] = deque()
        self._stream_windows: dict[int, int] = {}
        # What has come and is not read, what is still to come of an answer's frame, and what was received since the server was told.
        self._inbox = b""
        self._skipped = self._received = 0
        ours = {_INITIAL_WINDOW_SIZE: _WIDEST, _MAX_FRAME_SIZE: _LARGEST_FRAME}
        told = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in ours.items())
        self._outbox = bytearray(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, told))
        self._outbox += _frame(_WINDOW_UPDATE, 0, 0, (_WIDEST - _NARROWEST).to_bytes(4, "big"))

    @property
    def is_busy(self) -> bool:
        """Whether any call has no answer yet."""
        return bool(self._begun)

    def call(self) -> None:
        """Begin a call."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._begun[stream] = time.perf_counter()
        self._outbox += _frame(_HEADERS, _END_HEADERS, stream, self._headers)
        self._stream_windows[stream] = self._stream_window
        self._unsent.append((stream, self._message))

    def flush(self) -> bool:
        """Send what the windows allow; whether the socket has not taken all of it."""
        for _ in range(len(self._unsent)):
            stream, rest = self._unsent.popleft()
            rest = self._frames_of(stream, rest)
            if rest:
                self._unsent.append((stream, rest))
        if self._outbox:
            with contextlib.suppress(BlockingIOError):
                del self._outbox[: self.socket.send(self._outbox)]
        return bool(self._outbox)

    def _frames_of(self, stream: int, rest: memoryview) -> memoryview:
        """Frame as much of a message as there is room for; what is left."""
        while rest and (room := min(self._window, self._stream_windows[stream], self._largest_frame)) > 0:
            part, rest = rest[:room], rest[room:]
            self._window -= len(part)
            self._stream_windows[stream] -= len(part)
            self._outbox += _frame(_DATA, 0 if rest else _END_STREAM, stream, part)
        return rest

    def receive(self) -> None:
        """Read what has come. Raises `CallFailed`."""
        received = self.socket.recv(_RECEIVED_AT_ONCE)
        if not received:
            raise CallFailed("the server has closed the connection")
        if self._skipped:
            skipped = min(self._skipped, len(received))
            self._skipped -= skipped
            received = received[skipped:]
        inbox, at = self._inbox + received, 0
        while len(inbox) - at >= _HEAD:
            size, kind, flags = int.from_bytes(inbox[at : at + 3], "big"), inbox[at + 3], inbox[at + 4]
            stream = int.from_bytes(inbox[at + 5 : at + _HEAD], "big")
            end = at + _HEAD + size
            if end > len(inbox) and kind != _DATA:
                break
            if kind == _DATA:
                self._count(size)
                self._told.add(stream)
                self._skipped = max(0, end - len(inbox))
            else:
                self._understand(kind, flags, stream, inbox[at + _HEAD : end])
            if flags & _END_STREAM and kind in (_DATA, _HEADERS):
                self._end(stream)
            at = end
        self._inbox = inbox[at:]

    def _count(self, size: int) -> None:
        """Tell the server now and then that we have read what it sent."""
        self._received += size
        if self._received > _WIDEST // 2:
            self._outbox += _frame(_WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big"))
            self._received = 0

    def _understand(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE:
            if not stream:
                self._window += int.from_bytes(payload, "big")
            elif stream in self._stream_windows:
                self._stream_windows[stream] += int.from_bytes(payload, "big")
        elif kind == _SETTINGS and not flags & _ACK:
            for name, value in _settings(payload):
                self._set(name, value)
            self._outbox += _frame(_SETTINGS, _ACK, 0)
        elif kind == _PING and not flags & _ACK:
            self._outbox += _frame(_PING, _ACK, 0, payload)
        elif kind in (_RESET, _GO_AWAY):
            raise CallFailed(f"the server has ended a {'call' if kind == _RESET else 'connection'}: {payload[-100:]!r}")

    def _set(self, name: int, value: int) -> None:
        if name == _INITIAL_WINDOW_SIZE:
            for stream in self._stream_windows:
                self._stream_windows[stream] += value - self._stream_window
            self._stream_window = value
        elif name == _MAX_FRAME_SIZE:
            self._largest_frame = value

    def _end(self, stream: int) -> None:
        seconds = time.perf_counter() - self._begun.pop(stream)
        del self._stream_windows[stream]
        if stream not in self._told:
            raise CallFailed("a call was answered without a message")
        self._told.discard(stream)
        if self._answered(seconds):
            self.call()


def _frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    return b"".join((len(payload).to_bytes(3, "big"), bytes((kind, flags)), stream.to_bytes(4, "big"), payload))


def _settings(payload: bytes) -> Iterator[tuple[int, int]]:
    for at in range(0, len(payload), 6):
        yield int.from_bytes(payload[at : at + 2], "big"), int.from_bytes(payload[at + 2 : at + 6], "big")


def _headers(address: str) -> bytes:
    """The headers of a call, none of which the server is to remember (RFC 7541, 6.2.2)."""
    named = b"\x83\x86"  # :method POST, :scheme http
    for index, value in ((4, PATH), (1, address), (31, "application/grpc")):
        named += _number(index, 4) + _number(len(value), 7) + value.encode()
    return named + b"\x00\x02te\x08trailers"


def _number(value: int, bits: int) -> bytes:
    """As RFC 7541, 5.1."""
    most = 2**bits - 1
    if value < most:
        return bytes((value,))
    value -= most
    told = bytearray((most,))
    while value >= 128:
        told.append(value % 128 + 128)
        value //= 128
    return bytes((*told, value))
