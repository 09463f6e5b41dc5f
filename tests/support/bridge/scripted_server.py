"""A small inference server whose answers a test writes: the real services of `lamina.v1` on a real port, without models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from lamina.v1 import documents_pb2_grpc, labs_pb2_grpc, slides_pb2_grpc

# What a call does: it yields messages, may abort, may wait.
Behaviour = Callable[[Any, grpc.aio.ServicerContext], AsyncIterator[Any]]


def answer(*messages: Any) -> Behaviour:
    """Send the messages, and end well."""

    async def behave(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        for message in messages:
            yield message

    return behave


def refuse(
    code: grpc.StatusCode,
    details: str = "as told",
    *,
    after: tuple[Any, ...] = (),
    retry_after_ms: int | None = None,
    trailing: tuple[tuple[str, str], ...] = (),
) -> Behaviour:
    """Send the messages of `after`, and fail with the status."""

    async def behave(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        for message in after:
            yield message
        pause = () if retry_after_ms is None else (("retry-after-ms", str(retry_after_ms)),)
        await context.abort(code, details, (*pause, *trailing))

    return behave


def hang(*messages: Any) -> Behaviour:
    """Send the messages, and then nothing until the caller goes away."""

    async def behave(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        for message in messages:
            yield message
        await asyncio.Event().wait()

    return behave


def begin(behaviour: Behaviour) -> Behaviour:
    """Say first, as the real server does, that the work begins."""

    async def behave(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        await context.send_initial_metadata((("lamina-begun", "1"),))
        async for message in behaviour(request, context):
            yield message

    return behave


class ScriptedServer:
    """Serves the calls by the script, one behaviour each; the last one serves all that follow."""

    def __init__(self) -> None:
        self.address = ""
        self.script: list[Behaviour] = []
        # What came in, in order.
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []
        # Seconds that the caller left for each call.
        self.deadlines: list[float | None] = []
        # Set when a caller went away before its answer.
        self.cancelled = asyncio.Event()
        self.begun = asyncio.Event()
        self._health = health.aio.HealthServicer()

    async def tell_health(self, *, serving: bool) -> None:
        """What it says when it is asked whether it wants calls."""
        status = health_pb2.HealthCheckResponse
        await self._health.set("", status.SERVING if serving else status.NOT_SERVING)

    def add_health(self, server: grpc.aio.Server) -> None:
        """Serve it."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)

    async def stream(self, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())
        self.begun.set()
        behaviour = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        left = True
        # Not by the cancellation in here alone: a caller may go while grpc sends a message, outside of this generator.
        context.add_done_callback(lambda _: self.cancelled.set() if left else None)
        try:
            async for message in behaviour(request, context):
                yield message
            left = False
        except Exception:
            left = False
            raise

    async def unary(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        [message] = [message async for message in self.stream(request, context)]
        return message


class _Slides(slides_pb2_grpc.SlideServiceServicer):
    def __init__(self, server: ScriptedServer) -> None:
        self.AnalyzeSlide = server.stream


class _Documents(documents_pb2_grpc.DocumentServiceServicer):
    def __init__(self, server: ScriptedServer) -> None:
        self.RecognizeDocument = server.stream


class _Labs(labs_pb2_grpc.LabServiceServicer):
    def __init__(self, server: ScriptedServer) -> None:
        self.ClassifyLabTests = server.unary


@asynccontextmanager
async def scripted_server(
    *, host: str = "127.0.0.1", port: int = 0, message_bytes: int = 256 * 1024 * 1024
) -> AsyncIterator[ScriptedServer]:
    """A scripted server; on a free port, where none is named."""
    scripted = ScriptedServer()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", message_bytes), ("grpc.so_reuseport", 0)])
    slides_pb2_grpc.add_SlideServiceServicer_to_server(_Slides(scripted), server)
    documents_pb2_grpc.add_DocumentServiceServicer_to_server(_Documents(scripted), server)
    labs_pb2_grpc.add_LabServiceServicer_to_server(_Labs(scripted), server)
    await scripted.tell_health(serving=True)
    scripted.add_health(server)
    scripted.address = f"{host}:{server.add_insecure_port(f'{host}:{port}')}"
    await server.start()
    try:
        yield scripted
    finally:
        await server.stop(grace=0)
