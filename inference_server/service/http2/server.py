"""Serves gRPC's methods on one port."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import structlog

from inference_server.service.http2.blocks import plain_refusal
from inference_server.service.http2.compression import ENCODINGS, is_known
from inference_server.service.http2.connection import Connection
from inference_server.service.http2.context import CallContext
from inference_server.service.http2.handlers import Intercept, Methods, Serve
from inference_server.service.http2.listener import Listener, Observer, Tls
from inference_server.service.http2.messages import BytesBudget, MessageLimits, Status
from inference_server.service.http2.patience import ConnectionLimits
from inference_server.service.http2.reading import SCRATCH_SIZE
from inference_server.service.http2.stream import Stream

# Seconds for peers to take the last bytes of calls that have ended.
_LAST_SECONDS = 2.0
_LOOK_SECONDS = 0.02
# Connections that are looked at in one turn of the event loop.
_LOOKED_AT = 128
# How late a call may notice its deadline; its caller has noticed by itself.
_SWEEP_SECONDS = 0.02
# Share of its time that a request may have been under way.
_WAY_SHARE = 0.1

# What a caller is told of a call that was cut off.
_CUT_OFF = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "the deadline passed.",
    grpc.StatusCode.UNAVAILABLE: "the server is shutting down, and the call did not end in its time; call another one, or this one later.",
    grpc.StatusCode.CANCELLED: "the call was cancelled.",
}
_UNKNOWN = Status(code=grpc.StatusCode.UNIMPLEMENTED, details="Method not found!")

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What all connections together may do."""

    # Connections at a time.
    most_connections: int = 4096
    # Bytes of one message, before and after decompression.
    most_message_bytes: int
    # Bytes of all messages that have begun to arrive and were not yet taken; and of those that wait for their callers to take them.
    most_bytes_arriving: int
    most_bytes_leaving: int
    # How answers are compressed for callers who read it: gzip, deflate; empty for not at all.
    response_encoding: str = ""


@dataclass(kw_only=True, slots=True)
class _Running:
    """A call whose work has not ended."""

    context: CallContext
    connection: Connection
    task: asyncio.Task[None] | None = None
    begun: bool = False


class Http2Server:
    """Takes handlers as grpc.aio.Server does, so that generated code adds servicers to it."""

    def __init__(
        self,
        *,
        connections: ConnectionLimits,
        limits: ServerLimits,
        observer: Observer,
        intercept: Intercept | None = None,
        tls: Tls | None = None,
    ) -> None:
        """`intercept` makes what serves a method out of its path and handler; without it handlers serve as they are."""
        self._limits = connections
        self._encoding = limits.response_encoding
        self._observer = observer
        self.arriving = BytesBudget(limits.most_bytes_arriving)
        self.leaving = BytesBudget(limits.most_bytes_leaving)
        self._messages = MessageLimits(most_bytes=limits.most_message_bytes, arriving=self.arriving, leaving=self.leaving)
        self._methods = Methods(intercept)
        seconds = connections.receive_seconds
        self._listener = Listener(self._connect, most=limits.most_connections, tls=tls, seconds=seconds, observer=observer)
        self._scratch = memoryview(bytearray(SCRATCH_SIZE))
        self._connections: set[Connection] = set()
        self._calls: dict[Stream, _Running] = {}
        self._sweeps = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._looking: asyncio.TimerHandle | None = None

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The methods of a service, by name."""
        self._methods.add(service, handlers)

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """What finds a handler by the details of a call."""
        self._methods.add_generic(handlers)

    # Life.

    def listen(self, address: str) -> int:
        """Bind host:port at once and tell the port. Raises `OSError`."""
        return self._listener.bind(address)

    async def start(self) -> None:
        """Answer calls from now on."""
        self._listener.start()
        self._look()

    def _connect(self) -> Connection:
        return Connection(self, self._limits, self._messages, self._scratch)

    def _look(self) -> None:
        """Look at every connection, at few of them at a time. One timer for all: most have nothing to wait for."""
        loop = asyncio.get_running_loop()
        seconds = self._limits.look_seconds
        self._looking = loop.call_later(seconds, self._look)
        connections = list(self._connections)
        for at in range(0, len(connections), _LOOKED_AT):
            loop.call_later(seconds * at / len(connections), self._look_at, connections[at : at + _LOOKED_AT])

    def _look_at(self, connections: list[Connection]) -> None:
        now = asyncio.get_running_loop().time()
        for connection in connections:
            if connection in self._connections:
                connection.look(now)

    def leave(self) -> None:
        """Tell peers to make their next calls elsewhere; those in flight go on."""
        for connection in self._connections:
            connection.leave()

    async def flushed(self) -> None:
        """Wait until peers have taken what was answered."""
        while any(connection.has_unsent for connection in self._connections):  # noqa: ASYNC110 - sockets tell of room, not of the end
            await asyncio.sleep(_LOOK_SECONDS)

    async def stop(self) -> None:
        """Cancel what runs, let its statuses out, and close."""
        await self._listener.stop()
        for connection in self._connections:
            connection.serve_no_more()
        for call in list(self._calls.values()):
            call.context.give_up()
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
        if self._looking is not None:
            self._looking.cancel()

    # Calls.

    def opened(self, connection: Connection) -> None:
        """A peer has connected."""
        self._connections.add(connection)
        self._observer.opened()

    def closed(self, connection: Connection) -> None:
        """It is gone."""
        self._connections.discard(connection)
        self._listener.left()
        self._observer.closed(connection.reason)

    def begin(self, stream: Stream, connection: Connection) -> None:
        """Serve a call, from the next turn of the event loop on, when a small request is there already."""
        head = stream.head
        if head.refusal is not None:
            http_status, words = head.refusal
            code = grpc.StatusCode.RESOURCE_EXHAUSTED if http_status == 431 else grpc.StatusCode.INTERNAL
            stream.refuse(plain_refusal(http_status, code.value[0], words))
            return
        serve = self._methods.find(head.path)
        if serve is None:
            stream.finish(_UNKNOWN)
            return
        if not is_known(head.encoding):
            details = f"messages in {head.encoding[:40]} cannot be read; expected one of {', '.join(ENCODINGS)}."
            stream.finish(Status(code=grpc.StatusCode.UNIMPLEMENTED, details=details))
            return
        if self._encoding in head.accepted:
            stream.response_encoding = self._encoding
        self._run(stream, connection, serve)

    def _run(self, stream: Stream, connection: Connection, serve: Serve) -> None:
        call = _Running(context=CallContext(stream, peer=connection.peer, identity=connection.identity), connection=connection)
        self._calls[stream] = call
        self._idle.clear()
        connection.running += 1
        loop = asyncio.get_running_loop()
        if stream.head.timeout is not None and not self._sweeps:
            self._sweeps = True
            loop.call_later(_SWEEP_SECONDS, self._sweep)
        call.task = loop.create_task(self._serve(stream, call, serve))

    def cancel(self, stream: Stream) -> None:
        """The caller has gone away."""
        call = self._calls.get(stream)
        if call is None:
            return
        left, timeout = call.context.time_remaining(), stream.head.timeout
        # A caller whose deadline passes goes away; its clock began before ours, by the way of the request.
        if left is not None and timeout is not None and left <= max(_SWEEP_SECONDS, _WAY_SHARE * timeout):
            call.context.expire()
        _cancel(call)

    def _sweep(self) -> None:
        """End the calls whose deadline has passed. One timer for all of them: one for each costs as much as a small call's parsing."""
        timed = [call for call in self._calls.values() if call.context.time_remaining() is not None]
        for call in timed:
            if call.context.time_remaining() == 0 and not call.context.expired:
                call.context.expire()
                _cancel(call)
        self._sweeps = bool(timed)
        if timed:
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    async def _serve(self, stream: Stream, call: _Running, serve: Serve) -> None:
        call.begun = True
        failure: Status | None = None
        try:
            if call.context.expired:
                failure = Status(code=grpc.StatusCode.DEADLINE_EXCEEDED, details="the deadline passed before the call was begun.")
            elif not stream.over:
                await serve(call.context)
        except grpc.aio.AbortError:
            pass
        except asyncio.CancelledError:  # by us alone: this is the task's outermost frame
            code = call.context.cut_off_as
            failure = Status(code=code, details=_CUT_OFF[code])
        except Exception:
            _log.exception("call failed", method=stream.head.path)
            failure = _failed()
        finally:
            call.connection.running -= 1
            del self._calls[stream]
            if not self._calls:
                self._idle.set()
            self._end(stream, call.context, failure)

    def _end(self, stream: Stream, context: CallContext, failure: Status | None) -> None:
        try:
            context.end(failure)
        except Exception:
            _log.exception("call failed at its end", method=stream.head.path)
            stream.break_off(_failed())


def _failed() -> Status:
    return Status(code=grpc.StatusCode.UNKNOWN, details="the server failed on this request; its log tells why.")


def _cancel(call: _Running) -> None:
    """A task that is cancelled before it begins never does: that one finds out by itself."""
    if call.task is not None and call.begun:
        call.task.cancel()
