"""What the server counts, in Prometheus' terms. Held by an instance, so that two servers in one process do not share counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class CallMetrics:
    """Counts and times of calls."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        self._calls = Counter("lamina_calls", "Calls that ended.", ("service", "method", "code"), registry=registry)
        self._seconds = Histogram(
            "lamina_call_seconds", "Seconds from a call's begin to its end.", ("service", "method"), buckets=_SECONDS, registry=registry
        )
        self._in_flight = Gauge("lamina_calls_in_flight", "Calls that have begun and not ended.", ("service", "method"), registry=registry)
        self._refused = Counter(
            "lamina_limit_refusals",
            "Requests refused because they passed a limit; each is the setting INFERENCE_MAX_ followed by its name.",
            ("limit",),
            registry=registry,
        )
        self._bytes = Gauge("lamina_bytes_in_flight", "Bytes of the requests in flight.", registry=registry)
        Info("lamina_server", "The server.", registry=registry).info({"version": version})

    def begin(self, service: str, method: str) -> None:
        """A call began."""
        self._in_flight.labels(service, method).inc()

    def end(self, service: str, method: str, code: str, seconds: float) -> None:
        """A call ended."""
        self._in_flight.labels(service, method).dec()
        self._calls.labels(service, method, code).inc()
        self._seconds.labels(service, method).observe(seconds)

    def limit_refused(self, limit: str) -> None:
        """A request passed a limit."""
        self._refused.labels(limit).inc()

    def bytes_in_flight(self, size: int) -> None:
        """The bytes of the requests in flight changed."""
        self._bytes.set(size)


class ReadinessCollector(Collector):
    """Tells whether the server is ready, read when it is asked for."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    def collect(self) -> Iterator[Metric]:
        """The present value."""
        yield GaugeMetricFamily("lamina_server_ready", "1 when the server wants calls.", value=float(self._ready()))
