"""What the server counts, in Prometheus' terms. Held by an instance, so that two servers in one process do not share counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class CallMetrics:
    """Counts and times of calls."""

    def __init__(self, registry: CollectorRegistry, version: str, *, limits: Mapping[str, int] = MappingProxyType({})) -> None:
        """`limits`: what each limit is set to, by the name of its setting without `max_`; each is counted from 0 on."""
        self._calls = Counter("lamina_calls", "Calls that ended.", ("service", "method", "code"), registry=registry)
        self._seconds = Histogram(
            "lamina_call_seconds", "Seconds from a call's begin to its end.", ("service", "method"), buckets=_SECONDS, registry=registry
        )
        self._in_flight = Gauge("lamina_calls_in_flight", "Calls that have begun and not ended.", ("service", "method"), registry=registry)
        self._methods: dict[tuple[str, str], MethodMetrics] = {}
        self._refused = Counter(
            "lamina_limit_refusals",
            "Requests refused because they passed a limit; each is the setting INFERENCE_MAX_ followed by its name.",
            ("limit",),
            registry=registry,
        )
        self._waited = Counter(
            "lamina_limit_waits", "Requests that are kept waiting where more would pass a limit.", ("limit",), registry=registry
        )
        set_to = Gauge("lamina_limit", "What a limit is set to.", ("limit",), registry=registry)
        for limit, value in limits.items():
            set_to.labels(limit).set(value)
            self._refused.labels(limit)
        self._held = 0
        held = Gauge("lamina_bytes_in_flight", "Bytes of the requests in flight.", registry=registry)
        held.set_function(lambda: self._held)
        Info("lamina_server", "The server.", registry=registry).info({"version": version})

    def of_method(self, service: str, method: str) -> MethodMetrics:
        """The metrics of one method."""
        if (service, method) not in self._methods:
            counts = MethodMetrics(lambda code: self._calls.labels(service, method, code), self._seconds.labels(service, method))
            self._in_flight.labels(service, method).set_function(lambda: counts.in_flight)
            self._methods[service, method] = counts
        return self._methods[service, method]

    def limit_refused(self, limit: str) -> None:
        """A request passed a limit."""
        self._refused.labels(limit).inc()

    def limit_waited(self, limit: str) -> None:
        """A request waits for others to end, for it would pass a limit."""
        self._waited.labels(limit).inc()

    def bytes_in_flight(self, size: int) -> None:
        """The bytes of the requests in flight changed."""
        self._held = size


class MethodMetrics:
    """Counts and times of the calls of one method, looked up once; told on the event loop only."""

    def __init__(self, ended: Callable[[str], Counter], seconds: Histogram) -> None:
        """`ended`: the counter of the calls that ended with a code."""
        self._find = ended
        self._ended: dict[str, Counter] = {}
        self._seconds = seconds
        self.in_flight = 0

    def begin(self) -> None:
        """A call began."""
        self.in_flight += 1

    def end(self, code: str, seconds: float) -> None:
        """A call ended."""
        self.in_flight -= 1
        if code not in self._ended:
            self._ended[code] = self._find(code)
        self._ended[code].inc()
        self._seconds.observe(seconds)


class ReadinessCollector(Collector):
    """Tells whether the server is ready, read when it is asked for."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    def collect(self) -> Iterator[Metric]:
        """The present value."""
        yield GaugeMetricFamily("lamina_server_ready", "1 when the server wants calls.", value=float(self._ready()))
