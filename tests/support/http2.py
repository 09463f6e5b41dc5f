"""The transport of gRPC alone, served by a thread with an event loop of its own, and peers that speak HTTP/2 to it byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import hpack
import uvloop
from hyperframe.frame import Frame

from inference_server.service.http2.patience import ConnectionLimits
from inference_server.service.http2.server import Http2Server, ServerLimits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
SECONDS = 60.0
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class MovedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock a test moves on: limits of minutes pass at once, and none passes before, however slow the machine."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class Transport:
    """A server with methods of each kind, and what became of its calls and connections."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        self.server: Http2Server
        self.port = 0
        # What the event loop's handler was told: nothing should be.
        self.escaped: list[Any] = []
        # Why connections ended, in their order, and those that never were.
        self.reasons: list[str] = []
        self.failed_reasons: list[str] = []
        # Calls of Wait and Stubborn that have begun and not ended.
        self.waiting = 0
        self.most_waiting = 0
        self.may_end = threading.Event()

    # The server's observer.

    def opened(self) -> None:
        pass

    def closed(self, reason: str) -> None:
        self.reasons.append(reason)

    def failed(self, reason: str) -> None:
        self.failed_reasons.append(reason)

    # Methods; requests and responses are bytes.

    async def one(self, request: bytes, context: Any) -> bytes:
        return bytes(request)

    async def large(self, request: bytes, context: Any) -> bytes:
        return bytes(int(request) if bytes(request).isdigit() else 0)

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        number, _, size = bytes(request).partition(b" ")
        for _ in range(int(number) if number.isdigit() else 0):
            self.most_waiting += 1
            yield bytes(int(size or b"0"))

    async def total(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return str(sum([len(request) async for request in requests])).encode()

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield bytes(request)

    async def wait(self, request: bytes, context: Any) -> bytes:
        with self._waits():
            await asyncio.Event().wait()
        return b""

    async def stubborn(self, request: bytes, context: Any) -> bytes:
        with self._waits():
            while not self.may_end.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.02)
        return b""

    @contextmanager
    def _waits(self) -> Iterator[None]:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            yield
        finally:
            self.waiting -= 1

    async def fail(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "nothing: é% there\n", (("tried", "twice"), ("raw-bin", b"\x00\xff")))
        raise AssertionError("aborted")

    async def metadata(self, request: bytes, context: Any) -> bytes:
        return repr([item for item in context.invocation_metadata() if item[0] != "user-agent"]).encode()

    def handler(self) -> Any:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        handlers = {name.capitalize(): unary(getattr(self, name)) for name in ("one", "large", "wait", "stubborn", "fail", "metadata")}
        handlers["Count"] = grpc.unary_stream_rpc_method_handler(self.count)
        handlers["Total"] = grpc.stream_unary_rpc_method_handler(self.total)
        handlers["Both"] = stream(self.both)
        return grpc.method_handlers_generic_handler("test.Transport", handlers)

    # What a test asks.

    def on_loop(self, ask: Callable[[], Any]) -> Any:
        """Ask something in the server's thread."""

        async def answer() -> Any:
            return ask()

        return asyncio.run_coroutine_threadsafe(answer(), self.loop).result(SECONDS)

    def pass_seconds(self, seconds: int) -> None:
        """Let so many seconds pass, one by one: what looks every second does so for each. Needs a `MovedLoop`."""
        loop = self.loop
        assert isinstance(loop, MovedLoop)

        async def move() -> None:
            for _ in range(seconds):
                loop.ahead += 1.0
                # Timers are called in the order of their times.
                await asyncio.sleep(0.001)

        asyncio.run_coroutine_threadsafe(move(), loop).result(SECONDS)

    def held(self) -> dict[str, int]:
        """What calls and bytes the server holds."""
        server = self.server
        return self.on_loop(
            lambda: {
                "calls": len(server._calls),
                "running": sum(connection.running for connection in server._connections),
                "arriving": server.arriving.held,
                "leaving": server.leaving.held,
                "streams": sum(len(connection._line.streams) for connection in server._connections),
            }
        )

    def comes_to_rest(self) -> dict[str, int]:
        """What it holds that is not nothing, once peers are gone: nothing."""
        until_true(lambda: not any(self.held().values()))
        return {name: count for name, count in self.held().items() if count}


@contextmanager
def transport(
    loop: str = "uvloop", *, tls: Callable[[], ssl.SSLContext] | None = None, limits: Any = None, send_buffer: int = 0, **connections: Any
) -> Iterator[Transport]:
    """Serve on loopback; `connections`: limits of each one, `limits`: of all, `send_buffer`: bytes that the system keeps for a peer.

    At the end nothing has escaped, and nothing is held.
    """
    running = Transport()
    each = {"most_streams": 100, "keepalive_seconds": 60.0, "shortest_ping_seconds": 10.0, **connections}
    whole = {"most_message_bytes": 8 * 2**20, "most_bytes_arriving": 32 * 2**20, "most_bytes_leaving": 32 * 2**20, **(limits or {})}
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        running.loop = asyncio.get_running_loop()
        running.loop.set_exception_handler(lambda _, context: running.escaped.append(context))
        running.server = Http2Server(connections=ConnectionLimits(**each), limits=ServerLimits(**whole), observer=running, tls=tls)
        running.server.add_generic_rpc_handlers((running.handler(),))
        running.port = running.server.listen("127.0.0.1:0")
        for bound in running.server._listener._sockets if send_buffer else ():
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        await running.server.start()
        ready.set()
        await stop.wait()
        await running.server.stop()
        await asyncio.sleep(0.05)

    def run() -> None:
        with asyncio.Runner(loop_factory={**LOOPS, "moved": MovedLoop}[loop]) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(SECONDS)
    try:
        yield running
        assert running.comes_to_rest() == {}
    finally:
        running.may_end.set()
        running.loop.call_soon_threadsafe(stop.set)
        thread.join(SECONDS)
    assert (running.escaped, thread.is_alive()) == ([], False)
    assert (running.server.arriving.held, running.server.leaving.held, len(running.server._calls)) == (0, 0, 0)


def until_true(ask: Callable[[], Any], *, seconds: float = SECONDS) -> None:
    """Wait until something is so; whoever asks next sees that it was not."""
    until = time.monotonic() + seconds
    while not ask() and time.monotonic() < until:
        time.sleep(0.02)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """The bytes of a frame, right or not."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    """A frame of settings, by names such as initial_window_size."""
    names = ("", "header_table_size", "enable_push", "max_concurrent_streams", "initial_window_size", "max_frame_size")
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", names.index(name), value) for name, value in values.items()))


def message(content: bytes, flag: int = 0) -> bytes:
    """A message of gRPC."""
    return struct.pack(">BI", flag, len(content)) + content


def head(path: str = "/test.Transport/One", **changes: str | None) -> list[tuple[str, str]]:
    """Headers of a call; `changes` by name, with _ for -, and None for a header that is left out."""
    headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost", "content-type": "application/grpc"}
    headers["te"] = "trailers"
    for name, value in changes.items():
        headers[name.replace("_", "-").replace("pseudo-", ":")] = value  # type: ignore[assignment]
    return [(name, value) for name, value in headers.items() if value is not None]


def block(headers: list[tuple[str, str]]) -> bytes:
    """Headers in HPACK, as a peer writes them that keeps no table."""
    literal = bytearray()
    for name, value in headers:
        literal += b"\x00"
        for part in (name.encode("latin-1"), value.encode("latin-1")):
            literal += hpack.hpack.encode_integer(len(part), 7) + part
    return bytes(literal)


def call(stream: int, content: bytes = b"hello", path: str = "/test.Transport/One", **changes: str | None) -> bytes:
    """The frames of a whole call."""
    return frame(HEADERS, END_HEADERS, stream, block(head(path, **changes))) + frame(DATA, END_STREAM, stream, message(content))


class RawPeer:
    """A client of sockets, which sends any bytes and reads frames."""

    def __init__(self, port: int, *, greet: bool = True, tls: ssl.SSLContext | None = None, read_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if read_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
        self.socket.settimeout(SECONDS)
        self.socket.connect(("127.0.0.1", port))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self._rest = b""
        self._decoder = hpack.Decoder()
        if greet:
            self.send(PREFACE + settings())

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def frames(self) -> Iterator[Frame]:
        """What comes, until the server ends the connection."""
        while True:
            while len(self._rest) < 9 or len(self._rest) < 9 + int.from_bytes(self._rest[:3]):
                try:
                    more = self.socket.recv(2**16)
                except ConnectionResetError:
                    more = b""
                if not more:
                    return
                self._rest += more
            size = 9 + int.from_bytes(self._rest[:3])
            found, _ = Frame.parse_frame_header(memoryview(self._rest[:9]))
            found.parse_body(memoryview(self._rest[9:size]))
            self._rest = self._rest[size:]
            yield found

    def next(self, kind: int, stream: int | None = None) -> Frame:
        """The next frame of a type."""
        for found in self.frames():
            if found.type == kind and stream in (None, found.stream_id):
                return found
        raise AssertionError(f"the connection ended before a frame of type {kind}")

    def answer(self, stream: int) -> Answer:
        """All that comes for a stream."""
        got = Answer()
        for found in self.frames():
            if found.type == GOAWAY and got.last_stream is None:
                got.last_stream = found.last_stream_id
            if found.stream_id != stream:
                continue
            if found.type == HEADERS:
                headers = found.data
                while "END_HEADERS" not in found.flags:
                    found = next(self.frames())
                    headers += found.data
                got.headers |= {str(name): str(value) for name, value in self._decoder.decode(headers)}
            elif found.type == DATA:
                got.content += found.data
                got.frame_sizes.append(len(found.data))
            elif found.type == RST_STREAM:
                got.reset = found.error_code
            if found.type == RST_STREAM or "END_STREAM" in found.flags:
                return got
        raise AssertionError("the connection ended before the stream did")

    def end(self) -> int | None:
        """The code of the last GOAWAY before the connection ends; None without one."""
        code = None
        for found in self.frames():
            if found.type == GOAWAY:
                code = found.error_code
        return code

    def is_served(self, stream: int) -> bool:
        """Whether a call on the same connection is answered."""
        self.send(call(stream, b"still there?"))
        return self.answer(stream).messages == [b"still there?"]


class Answer:
    """What came for one call."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.content = b""
        self.frame_sizes: list[int] = []
        self.reset: int | None = None
        self.last_stream: int | None = None

    @property
    def status(self) -> int | None:
        """The status of gRPC."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def messages(self) -> list[bytes]:
        """The messages, whole."""
        rest, found = self.content, []
        while rest:
            size = int.from_bytes(rest[1:5])
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found


def is_served(port: int, **options: Any) -> bool:
    """Whether a client of an independent library gets its answer on a new connection. Raises `OSError` when that ends before."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    stream = connection.get_next_available_stream_id()
    connection.send_headers(stream, head())
    connection.send_data(stream, message(b"well-formed"), end_stream=True)
    content = b""
    with RawPeer(port, greet=False, **options) as peer:
        peer.send(connection.data_to_send())
        while received := peer.socket.recv(2**16):
            for event in connection.receive_data(received):
                if isinstance(event, h2.events.DataReceived):
                    content += event.data
                if isinstance(event, h2.events.StreamEnded):
                    return content == message(b"well-formed")
            peer.send(connection.data_to_send())
    raise ConnectionResetError("the connection ended before the answer did")


def is_served_at_last(port: int, *, patience: float, **options: Any) -> bool:
    """`is_served` by a server of so few seconds' patience: tried again where the peer took longer, as it may on a slow machine."""
    for _ in range(10):
        began = time.monotonic()
        try:
            return is_served(port, **options)
        except OSError:
            # The loop's clock may be a little behind.
            if time.monotonic() - began < 0.9 * patience:
                raise
    return False
