"""Spans by OpenTelemetry. Alone in importing it; loaded only where traces are turned on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bridge.errors import ConfigurationError
from bridge.tracing.port import Carrier, Facts, Kind, Span

_log = structlog.get_logger()
_W3C = TraceContextTextMapPropagator()
_KINDS = {
    Kind.INTERNAL: trace.SpanKind.INTERNAL,
    Kind.CONSUMER: trace.SpanKind.CONSUMER,
    Kind.PRODUCER: trace.SpanKind.PRODUCER,
    Kind.CLIENT: trace.SpanKind.CLIENT,
}
_EXPORT_SECONDS = 5
_CLOSE_SECONDS = 6.0


@dataclass(frozen=True, kw_only=True)
class Collector:
    """Whom spans are told to."""

    # http://host:port, or https://….
    endpoint: str
    # As OTEL_EXPORTER_OTLP_HEADERS has them: name=value,name=value. Secret.
    headers: str = ""
    # How we are called there.
    service: str = "lamina-bridge"
    # The share of the traces that begin here which are told; those of others are told where they are.
    ratio: float = 1.0


class OpenTelemetryTracer:
    """Tells spans to a collector by OTLP over gRPC, in batches, from a thread of its own: a collector that is away holds nothing up."""

    listens = True

    def __init__(self, collector: Collector) -> None:
        """Raises `ConfigurationError`."""
        if not collector.endpoint.startswith(("http://", "https://")):
            raise ConfigurationError(
                f"BRIDGE_TRACES_ENDPOINT: {collector.endpoint!r} is no address; expected http://host:4317 or https://…"
            )
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: collector.service}),
            sampler=ParentBased(TraceIdRatioBased(collector.ratio)),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=collector.endpoint, headers=collector.headers or None, timeout=_EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("lamina.bridge")

    def start(self, name: str, *, parent: Carrier, kind: Kind = Kind.INTERNAL, facts: Facts | None = None, at: float | None = None) -> Span:
        """Begin a span, now or `at` seconds since 1970; with an empty parent it begins a trace."""
        context = _W3C.extract(dict(parent))
        span = self._tracer.start_span(name, context=context, kind=_KINDS[kind], attributes=dict(facts or {}), start_time=_nanoseconds(at))
        return _Told(span)

    async def close(self) -> None:
        """Tell what is still to be told; takes a few seconds at most."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await asyncio.to_thread(self._provider.shutdown)
        except TimeoutError:
            _log.warning("spans_lost", reason=f"the collector took them for more than {_CLOSE_SECONDS:g} s")


class _Told:
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        found: dict[str, str] = {}
        _W3C.inject(found, context=trace.set_span_in_context(span))
        self.carrier: Carrier = found

    def end(self, *, failure: str = "", at: float | None = None, facts: Facts | None = None) -> None:
        """Ended, now or `at` seconds since 1970."""
        if not self._span.is_recording():
            return
        self._span.set_attributes(dict(facts or {}))
        if failure:
            self._span.set_status(trace.Status(trace.StatusCode.ERROR, failure))
        self._span.end(end_time=_nanoseconds(at))


def _nanoseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)
