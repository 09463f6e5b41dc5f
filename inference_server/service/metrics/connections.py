"""What the server counts of its connections, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class ConnectionMetrics:
    """Counts connections; told on the event loop only."""

    def __init__(self, registry: CollectorRegistry, *, limit_refused: Callable[[str], None] = lambda _: None) -> None:
        """`limit_refused` is told `connections` for each connection that was one too many."""
        self._limit_refused = limit_refused
        self._opened = Counter("lamina_connections_opened", "Connections that clients have opened, TLS agreed on.", registry=registry)
        self._closed = Counter(
            "lamina_connections_closed",
            "Connections that ended. reason: peer, shutdown, idle, age, keepalive, slow_request, or an error code of HTTP/2.",
            ("reason",),
            registry=registry,
        )
        self._failed = Counter("lamina_handshakes_failed", "Connections that did not agree on TLS.", registry=registry)
        self._open = 0
        Gauge("lamina_connections", "Connections that are open.", registry=registry).set_function(lambda: self._open)

    def opened(self) -> None:
        """A client has connected."""
        self._open += 1
        self._opened.inc()

    def closed(self, reason: str) -> None:
        """It is gone."""
        self._open -= 1
        self._closed.labels(reason).inc()

    def failed(self, reason: str) -> None:
        """A connection did not come so far."""
        if reason == "limit":
            self._limit_refused("connections")
        else:
            self._failed.inc()
