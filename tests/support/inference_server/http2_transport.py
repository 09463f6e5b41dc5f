"""The transport of gRPC alone, served by a thread with an event loop of its own, whose clock a test may move."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import uvloop

from inference_server.service.http2.patience import ConnectionLimits
from inference_server.service.http2.server import Http2Server, ServerLimits

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
