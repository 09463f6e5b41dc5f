"""Finds what serves a method among grpc's handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import grpc
import grpc.aio

from inference_server.service.http2.context import CallContext


class Serve(Protocol):
    """Serves one call of a method: reads from its context, writes into it."""

    async def __call__(self, context: CallContext, /) -> None:
        """Ends normally with the context's status; `grpc.aio.AbortError` means the same."""


Intercept = Callable[[str, Any], Serve]


class Methods:
    """The methods of one server."""

    def __init__(self, intercept: Intercept | None = None) -> None:
        """`intercept` makes what serves a method out of its path and handler; without it handlers serve as they are."""
        self._intercept = intercept or (lambda path, handler: plain(handler))
        self._handlers: dict[str, Any] = {}
        self._generic: list[Any] = []
        self._found: dict[str, Serve] = {}

    def add(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The methods of a service, by name."""
        self._handlers.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def add_generic(self, handlers: Any) -> None:
        """What finds a handler by the details of a call."""
        self._generic.extend(handlers)

    def find(self, path: str) -> Serve | None:
        """What serves a path; kept for paths that exist, so that there are not many."""
        found = self._found.get(path)
        if found is None and (handler := self._handler(path)) is not None:
            found = self._found[path] = self._intercept(path, handler)
        return found

    def _handler(self, path: str) -> Any:
        if path in self._handlers:
            return self._handlers[path]
        details = _Details(path)
        return next((handler for generic in self._generic if (handler := generic.service(details)) is not None), None)


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
            await context.finish_with(await behaviour(request, context))
            return
        await send_all(behaviour(request, context), context)

    return serve


async def send_all(responses: Any, context: CallContext) -> None:
    """Send what a method with many responses makes: a generator, closed before the call ends, or a coroutine that writes by itself."""
    if not hasattr(responses, "__aiter__"):
        await responses
        return
    async with aclosing(responses) as opened:
        async for response in opened:
            await context.write(response)
