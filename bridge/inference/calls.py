"""Carries a call through: to the best server, within its deadline, tried again elsewhere, with errors of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import grpc
import structlog

from bridge.errors import OverloadError, TransientError
from bridge.inference.fleet import Fleet
from bridge.inference.policies import RetryPolicy
from bridge.inference.retries import attempts
from bridge.inference.server import Metadata, Server
from bridge.inference.spans import followed
from bridge.inference.statuses import is_retried, translate
from bridge.tracing.port import Carrier, Tracer

_log = structlog.get_logger()

Event = TypeVar("Event")
Begun = TypeVar("Begun")
# Finds a method among a server's stubs.
Method = Callable[[Server], Callable[..., Any]]


class Calls:
    """Makes calls on a fleet. Raises `OverloadError`, `TransientError`, `PermanentError`; a cancelled task cancels its call."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        address: str,
        retries: RetryPolicy,
        idle_seconds: float,
        metadata: Callable[[str, Carrier], Metadata],
        tracer: Tracer,
    ) -> None:
        """`address`: how the servers are called in errors. `idle_seconds`: the longest silence of a stream.

        `metadata`: what goes with a request's id and its trace.
        """
        self._fleet = fleet
        self._address = address
        self._retries = retries
        self._idle_seconds = idle_seconds
        self._metadata = metadata
        self._tracer = tracer

    async def unary(self, method: Method, request: Any, *, seconds: float, request_id: str) -> Any:
        """The answer, within `seconds`, however often the call is tried."""
        begin_call = self._within(seconds, method, request, request_id)

        async def ask(server: Server, trace: Carrier) -> Any:
            call = begin_call(server, trace)
            with server.busy(call):
                return await call

        with self._errors_of_ours(), followed(self._tracer, request, address=self._address) as trace:
            return await self._tried(lambda server: ask(server, trace))

    async def stream(
        self,
        method: Method,
        request: Any,
        read_event: Callable[[Any], Event | None],
        last: type[Any],
        *,
        seconds: float,
        request_id: str,
    ) -> AsyncGenerator[Event, None]:
        """The events, of which one of the type `last` comes last. Begun anew elsewhere only before the first has come."""
        begin_call = self._within(seconds, method, request, request_id)
        result: Event | None = None
        with self._errors_of_ours():
            with followed(self._tracer, request, address=self._address) as trace, ExitStack() as held:

                async def begin(server: Server) -> tuple[Any, Any]:
                    with ExitStack() as trying:
                        call = begin_call(server, trace)
                        trying.enter_context(server.busy(call))
                        trying.callback(call.cancel)
                        message = await self._read(call)
                        held.push(trying.pop_all())
                        return call, message

                call, message = await self._tried(begin)
                while message is not grpc.aio.EOF:
                    event = read_event(message)
                    if isinstance(event, last):
                        # Held back until the call has ended well, so that leaving the stream at its result cancels nothing.
                        result = event
                    elif event is not None:
                        yield event
                    message = await self._read(call)
                if result is None:
                    raise TransientError(f"the inference server at {self._address} ended the stream without a result.")
            yield result

    async def _tried(self, begin: Callable[[Server], Awaitable[Begun]]) -> Begun:
        """What `begin` gives on the first server that takes the call: on others at once, and on all again after a wait."""
        async for attempt in attempts(self._retries):
            with attempt:
                passed: set[Server] = set()
                while True:
                    server = await self._fleet.choose(passed)
                    try:
                        return await begin(server)
                    except grpc.aio.AioRpcError as error:
                        passed.add(server)
                        if not is_retried(error) or not self._fleet.has_other_than(passed):
                            raise
                        _log.info("inference_tried_elsewhere", server=server.address, status=error.code().name)
        raise AssertionError("the last try returns or raises")

    def _within(self, seconds: float, method: Method, request: Any, request_id: str) -> Callable[[Server, Carrier], Any]:
        """Begins tries of one call, which share one deadline."""
        clock = asyncio.get_running_loop().time
        until = clock() + seconds

        def begin_call(server: Server, trace: Carrier) -> Any:
            return method(server)(request, timeout=max(until - clock(), 0.0), metadata=self._metadata(request_id, trace))

        return begin_call

    async def _read(self, call: Any) -> Any:
        try:
            async with asyncio.timeout(self._idle_seconds):
                return await call.read()
        except TimeoutError as error:
            raise TransientError(f"the inference server at {self._address} sent nothing for {self._idle_seconds:g} s.") from error

    @contextmanager
    def _errors_of_ours(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise translate(error, address=self._address) from error
        except asyncio.CancelledError as error:
            # Ours is passed on as it is; grpc makes one up when the channel is closed.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise OverloadError(f"the call to the inference server at {self._address} was cut off: its channel was closed.") from error
