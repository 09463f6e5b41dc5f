"""A collector of traces: OpenTelemetry's own service, that keeps what it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


class Collected:
    """A span, in plain values."""

    def __init__(self, span: trace_pb2.Span, resource: dict[str, Any]) -> None:
        self.message = span
        self.name = span.name
        self.trace_id = span.trace_id.hex()
        self.id = span.span_id.hex()
        self.parent = span.parent_span_id.hex()
        self.state = span.trace_state
        self.attributes = _plain(span.attributes)
        self.events = {event.name: _plain(event.attributes) for event in span.events}
        self.links = [link.span_id.hex() for link in span.links]
        self.failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
        # Unix time in nanoseconds.
        self.start, self.end = span.start_time_unix_nano, span.end_time_unix_nano
        self.resource = resource


class TraceCollector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, *, keeps: bool = True) -> None:
        self.spans: list[Collected] = []
        # How many came.
        self.count = 0
        # Of each message that brought some.
        self.metadata: list[dict[str, str]] = []
        self.endpoint = ""
        self._keeps = keeps

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self._keeps:
            self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        for resource_spans in request.resource_spans:
            resource = _plain(resource_spans.resource.attributes)
            for scope in resource_spans.scope_spans:
                self.count += len(scope.spans)
                self.spans += [] if not self._keeps else [Collected(span, resource) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, start: str) -> list[Collected]:
        """The spans whose names begin so."""
        return [span for span in self.spans if span.name.startswith(start)]

    def wait_for(self, wanted: Callable[[list[Collected]], Any], *, seconds: float = 60.0) -> Any:
        """What `wanted` gives of the spans so far, once it gives something."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := wanted(list(self.spans)):
                return found
            time.sleep(0.02)
        raise AssertionError(f"the spans that are waited for did not come; those that came: {[span.name for span in self.spans]}")


@contextmanager
def trace_collector(*, keeps: bool = True) -> Iterator[TraceCollector]:
    """A collector on a free port of 127.0.0.1; `keeps`: whether it keeps what it is sent, beside counting it."""
    collector = TraceCollector(keeps=keeps)
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
