"""What happens around every call, in one place: who calls, refusal while draining, limits, errors to statuses, logs and metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from types import MappingProxyType
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from inference_server.errors import InferenceError, InvalidInput, Overloaded
from inference_server.service.access import Access, Identity
from inference_server.service.caller import client_of, remember_proved_name
from inference_server.service.calls import Call, Context, Method, abort
from inference_server.service.lifecycle import BytesInFlight, Lifecycle
from inference_server.service.metrics import CallMetrics
from inference_server.service.request_limits import RequestLimits
from inference_server.service.wire_format import InferRequest

# Answered until the very end, and logged only when they fail: probes, and what tools ask before they call.
_PROBES = (
    "/grpc.health.v1.",
    "/grpc.reflection.",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)

# Asked thousands of times a second, when a line for each costs as much as the answer.
_FREQUENT = ("/inference.GRPCInferenceService/ModelInfer",)

# Characters.
_LONGEST_REQUEST_ID = 128

# Seconds after which a request that did not fit may: about the time of one batch.
_RETRY_AFTER = 0.25

# How long a request that is refused may take to arrive.
_REFUSAL_SECONDS = 0.25

_MAKERS: Mapping[tuple[bool, bool], Any] = MappingProxyType(
    {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
)

_log = structlog.get_logger()


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
        self._methods: dict[str, Method] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The method, wrapped; None stays None, which gRPC answers with UNIMPLEMENTED."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = self._method(handler_call_details.method)
        try:
            identity = self._access.identify(method.path, handler_call_details.invocation_metadata)
        except InferenceError as error:
            return self._refusal(method, error)
        wrapped: Any = _Wrapped(self, handler, method, identity)
        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        behaviour = wrapped.to_stream if handler.response_streaming else wrapped.to_one
        made: grpc.RpcMethodHandler[Any, Any] = make(behaviour, request_deserializer=None, response_serializer=handler.response_serializer)
        return made

    def _method(self, path: str) -> Method:
        """Called with paths of methods that exist, so that there are not many."""
        if path not in self._methods:
            service, _, name = path.lstrip("/").partition("/")
            is_probe = path.startswith(_PROBES)
            self._methods[path] = Method(
                path=path, metrics=self._metrics.of_method(service, name), is_probe=is_probe, is_quiet=is_probe or path in _FREQUENT
            )
        return self._methods[path]

    def _refusal(self, method: Method, error: InferenceError) -> grpc.RpcMethodHandler[Any, Any]:
        """A method that leaves its request alone. On the wire one message is a stream of one, so it stands in for methods of each kind."""

        async def fail(_: Call) -> None:
            raise error

        async def refuse(_: Any, context: Context) -> None:
            # A client that is still sending when the status comes may lose it. A small request is here at once; a large one is not read.
            reading = asyncio.ensure_future(context.read())
            await asyncio.wait({reading}, timeout=_REFUSAL_SECONDS)
            await self.around(fail, method, context, Identity())

        make: Any = grpc.stream_stream_rpc_method_handler
        handler: grpc.RpcMethodHandler[Any, Any] = make(refuse)
        return handler

    async def around(
        self, work: Callable[[Call], Awaitable[Any]], method: Method, context: Context, identity: Identity, *, lasts: bool = False
    ) -> Any:
        """One call, from its begin to its end, whatever the end is. `lasts`: whether its end is the caller's to choose."""
        remember_proved_name(self._access.name_of(identity, context))
        call = Call(method=method)
        started = time.perf_counter()
        method.metrics.begin()
        try:
            with self._place(method, lasts):
                return await work(call)
        except asyncio.CancelledError:
            call.code = grpc.StatusCode.DEADLINE_EXCEEDED if context.time_remaining() == 0 else grpc.StatusCode.CANCELLED
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

    def _place(self, method: Method, lasts: bool) -> AbstractContextManager[None]:
        """A health check takes no place, so that nobody can make the server look ill; watching its health takes one of their own."""
        if not method.is_probe:
            return self._lifecycle.call()
        return self._lifecycle.probe() if lasts else nullcontext()

    @contextmanager
    def admitted(self, call: Call, size: int) -> Iterator[None]:
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

    def check(self, message: Any, size: int) -> None:
        """Raise `InvalidInput` for a message, of so many bytes, that holds too much of something."""
        self._limits.check(message, size)

    def _log(self, call: Call, context: Context, seconds: float) -> None:
        quiet = call.method.is_quiet and call.code is grpc.StatusCode.OK
        if quiet and not _log.is_enabled_for(logging.DEBUG):
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
    """One method with everything around it; `to_one` and `to_stream` are what gRPC calls."""

    def __init__(self, interceptor: CallInterceptor, handler: Any, method: Method, identity: Identity) -> None:
        self._interceptor = interceptor
        self._method = method
        self._identity = identity
        self._parse = handler.request_deserializer
        self._reads_stream = handler.request_streaming
        self._behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    async def to_one(self, received: Any, context: Context) -> Any:
        """A method with one response."""

        async def answer(call: Call) -> Any:
            with self._admitted(call, received):
                return await self._behaviour(self._request(call, received), context)

        return await self._interceptor.around(answer, self._method, context, self._identity)

    async def to_stream(self, received: Any, context: Context) -> None:
        """A method with many responses; its generator is closed before the call ends."""

        async def answer(call: Call) -> None:
            with self._admitted(call, received):
                responses = self._behaviour(self._request(call, received), context)
                if not hasattr(responses, "__aiter__"):
                    await responses
                    return
                async with aclosing(responses):
                    async for response in responses:
                        await context.write(response)

        await self._interceptor.around(answer, self._method, context, self._identity, lasts=True)

    def _admitted(self, call: Call, received: Any) -> AbstractContextManager[None]:
        """Hold the one message for the call; those of a stream are held one after another."""
        return nullcontext() if self._reads_stream else self._interceptor.admitted(call, len(received))

    def _request(self, call: Call, received: Any) -> Any:
        """What the method is to read: one message, or an iterator of them."""
        return self._messages(call, received) if self._reads_stream else self._message(call, received)

    async def _messages(self, call: Call, received: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for content in received:
            with self._interceptor.admitted(call, len(content)):
                yield self._message(call, content)

    def _message(self, call: Call, content: bytes) -> Any:
        try:
            message = self._parse(content)
        except DecodeError as error:
            raise InvalidInput(
                f"the request to {call.method.path} is no message of its type; compare the two sides' .proto files."
            ) from error
        own = getattr(message, "request_id", "") or getattr(message, "id", "")
        call.own_id = own[:_LONGEST_REQUEST_ID]
        self._interceptor.check(message.message if isinstance(message, InferRequest) else message, len(content))
        return message
