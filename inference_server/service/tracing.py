"""Which requests are traced, and their spans: from the call to its status, with what the scheduler adds in between.

A request becomes a span when its model is known, since each model may have its own trace settings; those that end before are told by the
settings of all. The caller's trace is read from the metadata `traceparent` and `tracestate`. Its baggage is not read, so that nothing it
holds can leave with a span.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio

from inference_server.errors import InferenceError
from inference_server.scheduler.spans import Attributes, Span, Tracer
from inference_server.service.errors import status_of
from inference_server.service.http2.context import CallContext
from inference_server.service.http2.handlers import Intercept, Serve
from inference_server.service.open_inference.trace_settings import TraceSettings
from inference_server.service.open_inference.wire_format import InferRequest, InferResponse

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Sequence[tuple[str, str | bytes]]

_STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
# What runs models. Each request of a stream is traced by itself, and the stream is not.
_TRACED = ("/inference.GRPCInferenceService/ModelInfer", "/lamina.v1.")

# Characters.
_LONGEST_REQUEST_ID = 128

# The request that runs; each call, and each request of a stream, runs in a task of its own.
_CURRENT: ContextVar[TracedRequest | None] = ContextVar("traced_request", default=None)


def current_span() -> Span | None:
    """The span of the request that runs; None when it is not traced."""
    request = _CURRENT.get()
    return request.span if request is not None else None


class TracedRequest:
    """One request that may be traced, from its begin to its end."""

    def __init__(self, tracer: Tracer, settings: TraceSettings, path: str, metadata: Metadata) -> None:
        self._tracer = tracer
        self._settings = settings
        self._path = path.lstrip("/")
        self._metadata = metadata
        self._start = time.monotonic()
        self._decided = False
        self.span: Span | None = None

    def describe(self, message: Any) -> None:
        """Decide by the model that a request names, and tell what it is."""
        request_id = getattr(message, "request_id", "") or getattr(message, "id", "")
        told = {
            "lamina.model": getattr(message, "model_name", ""),
            "lamina.model_version": getattr(message, "model_version", ""),
            "lamina.request_id": request_id[:_LONGEST_REQUEST_ID],
        }
        self._decide(told["lamina.model"], {name: value for name, value in told.items() if value})

    def answered(self, response: Any) -> None:
        """Tell the version that answered, which the request may have left open."""
        version = getattr(response.message if isinstance(response, InferResponse) else response, "model_version", "")
        if self.span is not None and version:
            self.span.tell({"lamina.model_version": version})

    def end(self, code: grpc.StatusCode, error: str) -> None:
        """It is over."""
        if error:
            self._decide("", {})
        if self.span is not None:
            self.span.tell({"rpc.grpc.status_code": int(code.value[0])})
            self.span.end(error=error)

    def _decide(self, model: str, attributes: Attributes) -> None:
        if self._decided:
            return
        self._decided = True
        parent = self._tracer.parent(self._metadata)
        if not self._settings.samples(model, parent):
            return
        service, _, method = self._path.partition("/")
        rpc = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        self.span = self._tracer.begin(self._path, start=self._start, parent=parent, attributes={**rpc, **attributes})


class RequestTraces:
    """Traces requests as the trace settings say. Made only where traces are sent somewhere."""

    def __init__(self, tracer: Tracer, settings: TraceSettings) -> None:
        self._tracer = tracer
        self._settings = settings

    def begin(self, path: str, metadata: Metadata) -> TracedRequest:
        """A request came, to a method as /service/method."""
        return TracedRequest(self._tracer, self._settings, path, metadata)

    def around(self, intercept: Intercept) -> Intercept:
        """What serves a method, with what traces its calls around and within it."""

        def traced(path: str, handler: Any) -> Serve:
            if not path.startswith(_TRACED):
                return intercept(path, handler)
            return self._calls(path, intercept(path, _told(handler)))

        return traced

    def _calls(self, path: str, serve: Serve) -> Serve:
        """Begins and ends a request around all else, so that refusals are seen too."""

        async def call(context: CallContext, /) -> None:
            request = self.begin(path, _metadata(context.invocation_metadata()))
            _CURRENT.set(request)
            code, error = grpc.StatusCode.OK, ""
            try:
                await serve(context)
            except BaseException as failure:
                code, error = _code_of(failure, context), _name_of(failure)
                raise
            finally:
                request.end(code, error)

        return call

    async def of_stream(self, request: InferRequest, context: CallContext, infer: Callable[[], Awaitable[InferResponse]]) -> InferResponse:
        """Run one request of a stream, in a task of its own."""
        traced = self.begin(_STREAM, _metadata(context.invocation_metadata()))
        traced.describe(request.message)
        _CURRENT.set(traced)
        code, error = grpc.StatusCode.OK, ""
        try:
            response = await infer()
            traced.answered(response)
        except BaseException as failure:
            code, error = _code_of(failure, context), type(failure).__name__
            raise
        else:
            return response
        finally:
            traced.end(code, error)


def _told(handler: Any) -> Any:
    """A handler that tells a request from its message, once that was read and let in."""
    behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    def described(request: Any, context: Context) -> Any:
        traced = _CURRENT.get()
        if traced is not None:
            traced.describe(request.message if isinstance(request, InferRequest) else request)
        return behaviour(request, context)

    async def answered(request: Any, context: Context) -> Any:
        response = await described(request, context)
        traced = _CURRENT.get()
        if traced is not None:
            traced.answered(response)
        return response

    return _with(handler, described if handler.response_streaming else answered)


def _with(handler: Any, behaviour: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler like another one, that does something else."""
    kind = "_".join("stream" if streams else "unary" for streams in (handler.request_streaming, handler.response_streaming))
    make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
    made: grpc.RpcMethodHandler[Any, Any] = make(behaviour, handler.request_deserializer, handler.response_serializer)
    return made


def _metadata(metadata: Any) -> Metadata:
    return [(key, value) for key, value in metadata or ()]


def _code_of(failure: BaseException, context: CallContext) -> grpc.StatusCode:
    if isinstance(failure, asyncio.CancelledError):
        return context.cut_off_as
    if isinstance(failure, InferenceError):
        return status_of(failure)
    code: Any = context.code() if isinstance(failure, grpc.aio.AbortError) else None
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code
    return next((status for status in grpc.StatusCode if status.value[0] == number), grpc.StatusCode.UNKNOWN)


def _name_of(failure: BaseException) -> str:
    """The class of what went wrong, rather than of how gRPC was told."""
    cause = failure.__context__ if isinstance(failure, grpc.aio.AbortError) else None
    return type(cause or failure).__name__
