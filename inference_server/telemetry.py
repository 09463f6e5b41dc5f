"""Traces by OpenTelemetry, sent over OTLP; the only importer of it, imported only where traces are sent somewhere.

How often and how much is sent at a time, headers, certificates and further attributes are the library's own variables (`OTEL_…`).
Attributes of its resource: `service.name` and `service.version`, which `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` overrule.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from inference_server.scheduler.spans import Attributes, Span, TraceParent

# A place that does not answer must not hold the end of the server up.
_CLOSE_SECONDS = 5.0

_W3C = TraceContextTextMapPropagator()
_HEADERS = frozenset({"traceparent", "tracestate"})


def otlp_exporter(endpoint: str) -> SpanExporter:
    """Sends spans to a place as `http://host:4317`, `https://…`, or `host:port` with what `OTEL_EXPORTER_OTLP_INSECURE` says."""
    return OTLPSpanExporter(endpoint=endpoint)


class OpenTelemetryTracer:
    """See `scheduler.tracing.Tracer`. What is traced is decided before a span is begun; each one that is begun is sent."""

    def __init__(self, exporter: SpanExporter, *, version: str) -> None:
        """`version`: of the server."""
        own = Resource({"service.name": "lamina-inference-server", "service.version": version})
        resource = Resource.get_empty().merge(own).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("lamina", version)

    def parent(self, metadata: Sequence[tuple[str, str | bytes]]) -> TraceParent | None:
        """The caller's trace."""
        carrier = {key: value for key, value in metadata if key in _HEADERS and isinstance(value, str)}
        if "traceparent" not in carrier:
            return None
        context = _W3C.extract(carrier, contexts.Context())
        found = trace.get_current_span(context).get_span_context()
        return TraceParent(sampled=found.trace_flags.sampled, context=context) if found.is_valid else None

    def begin(self, name: str, *, start: float, parent: TraceParent | None, attributes: Attributes) -> Span:
        """The span of a request."""
        context = parent.context if parent is not None and isinstance(parent.context, contexts.Context) else contexts.Context()
        # Wall time less monotonic time: one for all spans of a request, lest a clock that is set meanwhile tear them apart.
        offset = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            name, context, trace.SpanKind.SERVER, attributes=dict(attributes), start_time=round(start * 1e9) + offset
        )
        return _Span(self._tracer, span, offset)

    def close(self) -> None:
        """Send what is left, for five seconds at most."""
        thread = threading.Thread(target=self._provider.shutdown, name="telemetry-close", daemon=True)
        thread.start()
        thread.join(_CLOSE_SECONDS)


class _Span:
    """See `scheduler.tracing.Span`."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span, offset: int) -> None:
        self._tracer = tracer
        self._span = span
        self._offset = offset

    def child(self, name: str, *, start: float, attributes: Attributes, links: Sequence[Span] = ()) -> Span:
        linked = [trace.Link(other._span.get_span_context()) for other in links if isinstance(other, _Span)]
        context = trace.set_span_in_context(self._span, contexts.Context())
        span = self._tracer.start_span(name, context, attributes=dict(attributes), links=linked, start_time=self._time(start))
        return _Span(self._tracer, span, self._offset)

    def tell(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def event(self, name: str, attributes: Attributes, *, at: float | None = None) -> None:
        told: Mapping[str, str | int | float | bool] = dict(attributes)
        self._span.add_event(name, told, self._time(time.monotonic() if at is None else at))

    def end(self, *, at: float | None = None, error: str = "") -> None:
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end(self._time(time.monotonic() if at is None else at))

    def _time(self, at: float) -> int:
        return round(at * 1e9) + self._offset
