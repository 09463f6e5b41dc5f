"""What happens around every call, in one place: who calls, refusal while draining, limits, errors to statuses, logs and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from inference_server.allocator import KEPT_FOR_MESSAGES, Reuse
from inference_server.errors import InferenceError, InvalidInput
from inference_server.logs import LogLevels
from inference_server.service.caller import client_of, remember_proved_name
from inference_server.service.calls import Call, Kind, Method, abort
from inference_server.service.http2.context import CallContext
from inference_server.service.http2.handlers import Serve, send_all
from inference_server.service.http2.messages import Content
from inference_server.service.lifecycle import BytesInFlight, Holding, Lifecycle
from inference_server.service.metrics.calls import CallMetrics
from inference_server.service.open_inference.wire_format import InferRequest
from inference_server.service.request_limits import RequestLimits
from inference_server.service.security.access import Access, Identity

# Answered until the very end, and logged only when they fail: probes, and what tools ask before they call.
_PROBES = (
    "/grpc.health.v1.",
    "/grpc.reflection.",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)

# Callers who ask for it are told at once that the work on their request begins: if the server dies over it, they know that it did.
# Not all are: after the first word of an answer gRPC tries no call again by itself.
_TELL_BEGIN = "lamina-tell-begin"
_BEGUN = (("lamina-begun", "1"),)

# Requests of so many bytes have the next ones find the memory that they leave.
_LARGE_BYTES = 2**19

# Asked thousands of times a second, when a line for each costs as much as the answer.
_FREQUENT = ("/inference.GRPCInferenceService/ModelInfer",)

# Characters.
_LONGEST_REQUEST_ID = 128

# How long a request that is refused may take to arrive.
_REFUSAL_SECONDS = 0.25

_log = structlog.get_logger()


class CallInterceptor:
    """Wraps every method.

    Callers who may not are refused before their request is read. Messages are parsed here, so that their bytes are admitted first and
    broken ones get a clear answer.
    """

    def __init__(
        self,
        *,
        lifecycle: Lifecycle,
        bytes_in_flight: BytesInFlight,
        metrics: CallMetrics,
        access: Access | None = None,
        limits: RequestLimits | None = None,
        levels: LogLevels | None = None,
        memory: Reuse | None = None,
    ) -> None:
        """Without `access` everybody may call everything. `levels`: which events are logged; `memory`: the process' one."""
        # A health check takes no place, so that nobody can make the server look ill; watching its health takes one of their own.
        self._doors: dict[Kind, tuple[Callable[[], None], Callable[[], None]]] = {
            Kind.CALL: (lifecycle.enter, lifecycle.leave),
            Kind.PROBE: (_nothing, _nothing),
            Kind.LASTING_PROBE: (lifecycle.enter_probe, lifecycle.leave_probe),
        }
        self._levels = levels or LogLevels("info")
        self._bytes = bytes_in_flight
        self._metrics = metrics
        self.access = access or Access()
        self._limits = limits or RequestLimits()
        self._memory = memory or Reuse()

    def wrap(self, path: str, handler: Any) -> Serve:
        """What serves a method, made once."""
        service, _, name = path.lstrip("/").partition("/")
        is_probe = path.startswith(_PROBES)
        lasts = is_probe and handler.response_streaming
        method = Method(
            path=path,
            metrics=self._metrics.of_method(service, name),
            kind=Kind.LASTING_PROBE if lasts else Kind.PROBE if is_probe else Kind.CALL,
            is_quiet=is_probe or path in _FREQUENT,
        )
        return _Wrapped(self, handler, method).serve

    async def around(
        self, work: Callable[[Call, CallContext], Awaitable[None]], method: Method, context: CallContext, identity: Identity
    ) -> None:
        """One call, from its begin to its end, whatever the end is."""
        name = self.access.name_of(identity, context)
        if name is not None:
            remember_proved_name(name)
        call = Call(method=method)
        started = time.perf_counter()
        method.metrics.begin()
        try:
            enter, leave = self._doors[method.kind]
            enter()
            try:
                await work(call, context)
            finally:
                leave()
        except asyncio.CancelledError:
            call.code = context.cut_off_as
            raise
        except Exception as error:
            call.error = type(error).__name__
            if isinstance(error, InferenceError) and error.limit:
                self._metrics.limit_refused(error.limit)
            await abort(call, context, error)
        finally:
            seconds = time.perf_counter() - started
            method.metrics.end(call.code.name, seconds)
            self._log(call, context, seconds)

    def holding(self, call: Call, size: int) -> Holding:
        """Hold a request's bytes, from now on until the end of a `with`. Raises `MessageTooLarge`, `Overloaded`."""
        self._limits.check_size(size)
        holding = self._bytes.holding(size)
        if size >= _LARGE_BYTES:
            self._memory.soon_again(KEPT_FOR_MESSAGES)
        call.size += size
        return holding

    def check(self, message: Any, size: int) -> None:
        """Raise `InvalidInput` for a message, of so many bytes, that holds too much of something."""
        self._limits.check(message, size)

    def _log(self, call: Call, context: CallContext, seconds: float) -> None:
        quiet = call.method.is_quiet and call.code is grpc.StatusCode.OK
        if quiet and not self._levels.verbose:
            return
        log = _log.debug if quiet else _log.info
        log(
            "call",
            method=call.method.path,
            code=call.code.name,
            milliseconds=round(seconds * 1000, 2),
            request_id=call.request_id,
            client=client_of(context),
            request_bytes=call.size,
            **({"error": call.error} if call.error else {}),
        )


class _Wrapped:
    """One method with everything around it."""

    def __init__(self, interceptor: CallInterceptor, handler: Any, method: Method) -> None:
        self._interceptor = interceptor
        self._method = method
        self._parse = handler.request_deserializer
        self._serialize = handler.response_serializer
        self._reads_stream = handler.request_streaming
        self._may_tell_begin = method.kind is Kind.CALL and not method.is_quiet
        self._behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        self._answer = self._to_stream if handler.response_streaming else self._to_one

    async def serve(self, context: CallContext, /) -> None:
        """One call; what the transport runs."""
        interceptor, method = self._interceptor, self._method
        context.serialize_with(self._serialize)
        try:
            identity = interceptor.access.identify(method.path, context.invocation_metadata())
        except InferenceError as error:
            # A client that still sends when the status comes may lose it. A small request is here at once; a large one is not waited for.
            with contextlib.suppress(TimeoutError, grpc.aio.AbortError):
                await asyncio.wait_for(_hear_out(context), _REFUSAL_SECONDS)
            await interceptor.around(partial(_fail, error), method, context, Identity())
            return
        await interceptor.around(self._answer, method, context, identity)

    async def _to_one(self, call: Call, context: CallContext) -> None:
        if self._reads_stream:
            await context.finish_with(await self._behaviour(self._messages(call, context), context))
            return
        content = await context.read_one()
        with self._interceptor.holding(call, len(content)):
            await context.finish_with(await self._behaviour(await self._begun(call, content, context), context))

    async def _to_stream(self, call: Call, context: CallContext) -> None:
        """A method with many responses; its generator is closed before the call ends."""
        if self._reads_stream:
            await send_all(self._behaviour(self._messages(call, context), context), context)
            return
        content = await context.read_one()
        with self._interceptor.holding(call, len(content)):
            await send_all(self._behaviour(await self._begun(call, content, context), context), context)

    async def _begun(self, call: Call, content: Content, context: CallContext) -> Any:
        """The request, on which work begins now."""
        message = self._message(call, content)
        if self._may_tell_begin and any(name == _TELL_BEGIN for name, _ in context.invocation_metadata()):
            await context.send_initial_metadata(_BEGUN)
        return message

    async def _messages(self, call: Call, context: CallContext) -> AsyncIterator[Any]:
        while (content := await context.read()) is not grpc.aio.EOF:
            with self._interceptor.holding(call, len(content)):
                yield self._message(call, content)

    def _message(self, call: Call, content: Content) -> Any:
        try:
            message = self._parse(content)
        except DecodeError as error:
            raise InvalidInput(
                f"the request to {call.method.path} is no message of its type; compare the two sides' .proto files."
            ) from error
        if isinstance(message, InferRequest):
            call.own_id = message.message.id[:_LONGEST_REQUEST_ID]
            self._interceptor.check(message.message, len(content))
        else:
            call.own_id = (getattr(message, "request_id", "") or getattr(message, "id", ""))[:_LONGEST_REQUEST_ID]
            self._interceptor.check(message, len(content))
        return message


def _nothing() -> None:
    """A door that is always open."""


async def _hear_out(context: CallContext) -> None:
    """Read what the caller sends until it has said all."""
    while await context.read() is not grpc.aio.EOF:
        pass


async def _fail(error: InferenceError, call: Call, context: CallContext) -> None:
    raise error
