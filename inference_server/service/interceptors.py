"""What happens around every call, in one place: who calls, refusal while draining, limits, errors to statuses, logs and metrics."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from inference_server.errors import InferenceError, InvalidInput, Overloaded
from inference_server.service.access import Access, Identity
from inference_server.service.caller import client_of, remember_proved_name
from inference_server.service.errors import status_of, trailers_of
from inference_server.service.lifecycle import BytesInFlight, Lifecycle
from inference_server.service.metrics import CallMetrics
from inference_server.service.request_limits import RequestLimits

Context = grpc.aio.ServicerContext[Any, Any]

# Answered until the very end, and logged only when they fail: probes, and what tools ask before they call.
_PROBES = (
    "/grpc.health.v1.",
    "/grpc.reflection.",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)

# Seconds after which a request that did not fit may: about the time of one batch.
_RETRY_AFTER = 0.25

# Characters. A client drops a status whose details pass its bound on metadata, 8 KiB by default.
_LONGEST_DETAILS = 1500
_LONGEST_REQUEST_ID = 128

_log = structlog.get_logger()


@dataclass(kw_only=True)
class _Call:
    """What is known of one call while it runs."""

    # /package.Service/Method
    path: str
    # Names the call in the log: the caller's own id, else one of ours.
    request_id: str
    # Bytes of its requests so far.
    size: int = 0
    code: grpc.StatusCode = grpc.StatusCode.OK
    # Class of the error that ended it; its text may hold what the caller sent, and stays out of the log.
    error: str = ""

    @property
    def is_probe(self) -> bool:
        return self.path.startswith(_PROBES)


class CallInterceptor(grpc.aio.ServerInterceptor):
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
    ) -> None:
        """Without `access` everybody may call everything."""
        self._lifecycle = lifecycle
        self._bytes = bytes_in_flight
        self._metrics = metrics
        self._access = access or Access()
        self._limits = limits or RequestLimits()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The method, wrapped; None stays None, which gRPC answers with UNIMPLEMENTED."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return handler
        path = handler_call_details.method
        try:
            identity = self._access.identify(path, handler_call_details.invocation_metadata)
        except InferenceError as error:
            return self._refusal(path, error)
        wrapped: Any = _Wrapped(self, handler, path, identity)
        shape = (handler.request_streaming, handler.response_streaming)
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[shape]
        behaviour = wrapped.to_stream if handler.response_streaming else wrapped.to_one
        return make(behaviour, request_deserializer=None, response_serializer=handler.response_serializer)

    def _refusal(self, path: str, error: InferenceError) -> grpc.RpcMethodHandler[Any, Any]:
        """A method that takes no request. On the wire one message is a stream of one, so it stands in for methods of each kind."""

        async def refuse(_: Any, context: Context) -> None:
            async with self.around(path, context, Identity()):
                raise error

        handler: Any = grpc.stream_stream_rpc_method_handler(refuse)  # type: ignore[arg-type]
        return handler

    @asynccontextmanager
    async def around(self, path: str, context: Context, identity: Identity) -> AsyncIterator[_Call]:
        """One call, from its begin to its end, whatever the end is."""
        remember_proved_name(self._access.name_of(identity, context))
        call = _Call(path=path, request_id=uuid.uuid4().hex[:12])
        service, _, method = path.lstrip("/").partition("/")
        started = time.perf_counter()
        self._metrics.begin(service, method)
        try:
            with self._lifecycle.probe() if call.is_probe else self._lifecycle.call():
                yield call
        except asyncio.CancelledError:
            call.code = grpc.StatusCode.DEADLINE_EXCEEDED if context.time_remaining() == 0 else grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            call.error = type(error).__name__
            if isinstance(error, InferenceError) and error.limit:
                self._metrics.limit_refused(error.limit)
            await _abort(call, context, error)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.end(service, method, call.code.name, seconds)
            self._log(call, context, seconds)

    @asynccontextmanager
    async def admitted(self, call: _Call, size: int) -> AsyncIterator[None]:
        """Hold a request's bytes while it is worked on. Raises `MessageTooLarge`, `Overloaded`."""
        self._limits.check_size(size)
        if not self._bytes.try_hold(size):
            raise Overloaded(
                f"the requests in flight hold too many bytes for another {size}; try again shortly.",
                retry_after=_RETRY_AFTER,
                limit="bytes_in_flight",
            )
        call.size += size
        try:
            yield
        finally:
            self._bytes.release(size)

    def check(self, message: Any) -> None:
        """Raise `InvalidInput` for a message that holds too much of something."""
        self._limits.check(message)

    def _log(self, call: _Call, context: Context, seconds: float) -> None:
        log = _log.debug if call.is_probe and call.code is grpc.StatusCode.OK else _log.info
        log(
            "call",
            method=call.path,
            code=call.code.name,
            milliseconds=round(seconds * 1000, 2),
            request_id=call.request_id,
            client=client_of(context),
            request_bytes=call.size,
            **({"error": call.error} if call.error else {}),
        )


class _Wrapped:
    """One method with everything around it; `to_one` and `to_stream` are what gRPC calls."""

    def __init__(self, interceptor: CallInterceptor, handler: Any, path: str, identity: Identity) -> None:
        self._interceptor = interceptor
        self._path = path
        self._identity = identity
        self._parse = handler.request_deserializer
        self._reads_stream = handler.request_streaming
        self._behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    async def to_one(self, received: Any, context: Context) -> Any:
        """A method with one response."""
        async with self._interceptor.around(self._path, context, self._identity) as call, AsyncExitStack() as stack:
            answer = self._behaviour(await self._request(call, received, stack), context)
            return await answer
        raise AssertionError("unreachable: the call was aborted")

    async def to_stream(self, received: Any, context: Context) -> None:
        """A method with many responses; its generator is closed before the call ends."""
        async with self._interceptor.around(self._path, context, self._identity) as call, AsyncExitStack() as stack:
            answer = self._behaviour(await self._request(call, received, stack), context)
            if not hasattr(answer, "__aiter__"):
                await answer
                return
            async with aclosing(answer):
                async for response in answer:
                    await context.write(response)

    async def _request(self, call: _Call, received: Any, stack: AsyncExitStack) -> Any:
        """What the method is to read: one message, or an iterator of them."""
        if self._reads_stream:
            return self._messages(call, received)
        await stack.enter_async_context(self._interceptor.admitted(call, len(received)))
        return self._message(call, received)

    async def _messages(self, call: _Call, received: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for content in received:
            async with self._interceptor.admitted(call, len(content)):
                yield self._message(call, content)

    def _message(self, call: _Call, content: bytes) -> Any:
        try:
            message = self._parse(content)
        except DecodeError as error:
            raise InvalidInput(f"the request to {call.path} is no message of its type; compare the two sides' .proto files.") from error
        own = getattr(message, "request_id", "") or getattr(message, "id", "")
        call.request_id = own[:_LONGEST_REQUEST_ID] or call.request_id
        self._interceptor.check(message)
        return message


async def _abort(call: _Call, context: Context, error: Exception) -> None:
    """End a call with the status of its error; always raises."""
    if isinstance(error, InferenceError):
        call.code = status_of(error)
        await context.abort(call.code, _shortened(str(error)), trailing_metadata=trailers_of(error))
    if isinstance(error, grpc.aio.AbortError):
        call.code = _code_of(context)
        raise error
    if isinstance(error, NotImplementedError) and _code_of(context) is grpc.StatusCode.UNIMPLEMENTED:
        call.code = grpc.StatusCode.UNIMPLEMENTED
        await context.abort(call.code, f"{call.path} is part of the protocol, and not offered by this server.")
    # The text of an unexpected error may hold anything; it stays in the log.
    _log.exception("call failed", method=call.path, request_id=call.request_id)
    call.code = grpc.StatusCode.INTERNAL
    await context.abort(call.code, f"the server failed on this request; its log tells why under request_id {call.request_id}.")


def _shortened(details: str) -> str:
    return details if len(details) <= _LONGEST_DETAILS else f"{details[:_LONGEST_DETAILS]} … ({len(details)} characters)"


def _code_of(context: Context) -> grpc.StatusCode:
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return next((status for status in grpc.StatusCode if status.value[0] == code), grpc.StatusCode.UNKNOWN)
