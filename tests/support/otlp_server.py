"""A collector of OpenTelemetry on a real port, which keeps the spans that it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, kw_only=True)
class ToldSpan:
    """One span."""

    name: str
    # Hexadecimal.
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    failed: bool
    # Seconds since 1970.
    start: float
    end: float
    facts: dict[str, Any]
    service: str


@dataclass
class Collected:
    """What came."""

    address: str = ""
    spans: list[ToldSpan] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)

    def named(self, start: str) -> list[ToldSpan]:
        return [span for span in self.spans if span.name.startswith(start)]

    async def until(self, fits: Callable[[], Any]) -> None:
        async with asyncio.timeout(60):
            while not fits():
                await asyncio.sleep(0.05)


class _Servicer(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collected: Collected) -> None:
        self._collected = collected

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  (the name in the proto)
        self._collected.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        for resource in request.resource_spans:
            service = next((each.value.string_value for each in resource.resource.attributes if each.key == "service.name"), "")
            for scope in resource.scope_spans:
                self._collected.spans += [_told(span, service) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def _told(span: Any, service: str) -> ToldSpan:
    facts = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
    return ToldSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=span.kind,
        failed=span.status.code == 2,
        start=span.start_time_unix_nano / 1e9,
        end=span.end_time_unix_nano / 1e9,
        facts=facts,
        service=service,
    )


@asynccontextmanager
async def otlp_server() -> AsyncIterator[Collected]:
    """A collector on a free port of this machine."""
    collected = Collected()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Servicer(collected), server)
    collected.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collected
    finally:
        await server.stop(grace=0)
