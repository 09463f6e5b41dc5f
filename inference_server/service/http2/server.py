"""Serves gRPC's methods on one port."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio
import structlog

from inference_server.service.http2.compression import ENCODINGS, is_known
from inference_server.service.http2.connection import Connection, ConnectionLimits
from inference_server.service.http2.context import CallContext
from inference_server.service.http2.headers import plain_refusal
from inference_server.service.http2.stream import MessageLimits, ReceiveBudget, Status, Stream

# Connections that the system keeps for us while we are busy.
_BACKLOG = 1024
# Seconds for peers to take the last bytes of calls that have ended.
_LAST_SECONDS = 2.0
_LOOK_SECONDS = 0.02
# How late a call may notice its deadline; its caller has noticed by itself.
_SWEEP_SECONDS = 0.02

_UNKNOWN = Status(code=grpc.StatusCode.UNIMPLEMENTED, details="Method not found!")

_log = structlog.get_logger()


class Serve(Protocol):
    """Serves one call of a method: reads from its context, writes into it."""

    async def __call__(self, context: CallContext, /) -> None:
        """Ends normally with the context's status; `grpc.aio.AbortError` means the same."""


Intercept = Callable[[str, Any], Serve]


@dataclass(kw_only=True, slots=True)
class _Running:
    """A call whose work has not ended."""

    context: CallContext
    connection: Connection
    task: asyncio.Task[None] | None = None
    # Of the event loop's clock; None without one.
    deadline: float | None = None
    begun: bool = False
    expired: bool = False


class Http2Server:
    """Takes handlers as grpc.aio.Server does, so that generated code adds servicers to it."""

    def __init__(
        self,
        *,
        limits: ConnectionLimits,
        most_message_bytes: int,
        most_bytes_arriving: int,
        intercept: Intercept | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`intercept` makes what serves a method out of its path and handler; without it handlers serve as they are."""
        self._limits = limits
        self._messages = MessageLimits(most_bytes=most_message_bytes, budget=ReceiveBudget(most_bytes_arriving))
        self._intercept = intercept or (lambda path, handler: plain(handler))
        self._tls = tls
        self._handlers: dict[str, Any] = {}
        self._generic: list[Any] = []
        self._methods: dict[str, Serve] = {}
        self._connections: set[Connection] = set()
        self._calls: dict[Stream, _Running] = {}
        self._sweeps = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    # Methods.

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The methods of a service, by name."""
        self._handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """What finds a handler by the details of a call."""
        self._generic.extend(handlers)

    def _method(self, path: str) -> Serve | None:
        """What serves a path; kept for paths that exist, so that there are not many."""
        found = self._methods.get(path)
        if found is None and (handler := self._handler(path)) is not None:
            found = self._methods[path] = self._intercept(path, handler)
        return found

    def _handler(self, path: str) -> Any:
        if path in self._handlers:
            return self._handlers[path]
        details = _Details(path)
        return next((handler for generic in self._generic if (handler := generic.service(details)) is not None), None)

    # Life.

    def listen(self, address: str) -> int:
        """Bind host:port at once and tell the port. Raises `OSError`."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        number = int(port)
        if not host or host == "::":
            self._sockets = [socket.create_server(("", number), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)]
            return int(self._sockets[0].getsockname()[1])
        found = dict.fromkeys((family, at[0]) for family, *_, at in socket.getaddrinfo(host, number, type=socket.SOCK_STREAM))
        for family, name in found:
            self._sockets.append(socket.create_server((str(name), number), family=family, backlog=_BACKLOG))
            number = int(self._sockets[0].getsockname()[1])
        return number

    async def start(self) -> None:
        """Answer calls from now on."""
        loop = asyncio.get_running_loop()
        for bound in self._sockets:
            bound.setblocking(False)
            self._servers.append(await loop.create_server(self._connect, sock=bound, ssl=self._tls))

    def _connect(self) -> Connection:
        return Connection(self, self._limits, self._messages)

    async def flushed(self) -> None:
        """Wait until peers have taken what was answered."""
        while any(connection.has_unsent for connection in self._connections):  # noqa: ASYNC110 - sockets tell of room, not of the end
            await asyncio.sleep(_LOOK_SECONDS)

    async def stop(self) -> None:
        """Cancel what runs, let its statuses out, and close."""
        for server in self._servers:
            server.close()
        if not self._servers:
            for bound in self._sockets:
                bound.close()
        for connection in self._connections:
            connection.go_away()
        for call in list(self._calls.values()):
            _cancel(call)
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self._idle.wait()
                await self.flushed()
        except TimeoutError:
            _log.warning("calls_do_not_end", calls=len(self._calls))
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)
        for connection in list(self._connections):
            connection.abort()

    # Calls.

    def opened(self, connection: Connection) -> None:
        """A peer has connected."""
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """It is gone."""
        self._connections.discard(connection)

    def begin(self, stream: Stream, connection: Connection) -> None:
        """Serve a call, from the next turn of the event loop on, when a small request is there already."""
        head = stream.head
        if head.refusal is not None:
            stream.refuse(plain_refusal(head.refusal[0]), head.refusal[1])
            return
        serve = self._method(head.path)
        if serve is None:
            stream.finish(_UNKNOWN)
            return
        if not is_known(head.encoding):
            details = f"messages in {head.encoding[:40]} cannot be read; expected one of {', '.join(ENCODINGS)}."
            stream.finish(Status(code=grpc.StatusCode.UNIMPLEMENTED, details=details))
            return
        call = _Running(context=CallContext(stream, peer=connection.peer, identity=connection.identity), connection=connection)
        self._calls[stream] = call
        self._idle.clear()
        connection.running += 1
        loop = asyncio.get_running_loop()
        if head.timeout is not None:
            call.deadline = loop.time() + head.timeout
            if not self._sweeps:
                self._sweeps = True
                loop.call_later(_SWEEP_SECONDS, self._sweep)
        call.task = loop.create_task(self._serve(stream, call, serve))

    def cancel(self, stream: Stream) -> None:
        """The caller has gone away."""
        call = self._calls.get(stream)
        if call is not None:
            _cancel(call)

    def _sweep(self) -> None:
        """End the calls whose deadline has passed. One timer for all of them: one for each costs as much as a small call's parsing."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        timed = [call for call in self._calls.values() if call.deadline is not None]
        for call in timed:
            if call.deadline is not None and call.deadline <= now and not call.expired:
                call.expired = True
                call.context.expire()
                _cancel(call)
        self._sweeps = bool(timed)
        if timed:
            loop.call_later(_SWEEP_SECONDS, self._sweep)

    async def _serve(self, stream: Stream, call: _Running, serve: Serve) -> None:
        call.begun = True
        failure: Status | None = None
        try:
            if call.expired:
                failure = Status(code=grpc.StatusCode.DEADLINE_EXCEEDED, details="the deadline passed before the call was begun.")
            elif not stream.over:
                await serve(call.context)
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:  # by us alone: this is the task's outermost frame
            code = grpc.StatusCode.DEADLINE_EXCEEDED if call.expired else grpc.StatusCode.CANCELLED
            failure = Status(code=code, details="the deadline passed." if call.expired else "the call was cancelled.")
        except Exception:
            _log.exception("call failed", method=stream.head.path)
            failure = Status(code=grpc.StatusCode.UNKNOWN, details="the server failed on this request; its log tells why.")
        finally:
            call.connection.running -= 1
            del self._calls[stream]
            if not self._calls:
                self._idle.set()
            call.context.end(failure)


def _cancel(call: _Running) -> None:
    """A task that is cancelled before it begins never does: that one finds out by itself."""
    if call.task is not None and call.begun:
        call.task.cancel()


class _Details(grpc.HandlerCallDetails):
    """What finds a handler asks."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


def plain(handler: Any) -> Serve:
    """What serves a handler of grpc's, of any of its four kinds."""
    parse: Callable[[Any], Any] = handler.request_deserializer or (lambda content: content)
    behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    async def messages(context: CallContext) -> Any:
        while (content := await context.read()) is not grpc.aio.EOF:
            yield parse(content)

    async def serve(context: CallContext, /) -> None:
        context.serialize_with(handler.response_serializer)
        request = messages(context) if handler.request_streaming else parse(await context.read_one())
        if not handler.response_streaming:
            context.finish_with(await behaviour(request, context))
            return
        responses = behaviour(request, context)
        if not hasattr(responses, "__aiter__"):
            await responses
            return
        async with aclosing(responses) as opened:
            async for response in opened:
                await context.write(response)

    return serve
