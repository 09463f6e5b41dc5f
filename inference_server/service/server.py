"""The gRPC server's life: it listens, becomes ready, leaves, drains, ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from inference_server.errors import ConfigurationError
from inference_server.service.http2.handlers import Intercept
from inference_server.service.http2.patience import ConnectionLimits
from inference_server.service.http2.server import Http2Server, ServerLimits
from inference_server.service.lifecycle import Lifecycle, Phase
from inference_server.service.metrics.connections import ConnectionMetrics
from inference_server.service.security.tls import Tls

_log = structlog.get_logger()

# What health is asked for to learn whether the process answers at all, its models loaded or not; for probes that restart it otherwise.
LIVE = "live"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# Bytes of a message that a window of HTTP/2 can let in.
_LARGEST_MESSAGE = 2**31 - 2**22

# Seconds given to calls that were cancelled because the drain took too long.
_LAST_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """One gRPC service to offer."""

    # Full name, such as lamina.v1.SlideService.
    name: str
    # Adds the servicer to a server: the generated add_XServicer_to_server with the servicer bound.
    add_to: Callable[[Any], None]
    # Whether it could answer now, the models that it needs considered.
    is_able: Callable[[], bool] = lambda: True
    # Clears away what earlier servers left behind; blocks.
    sweep: Callable[[], None] = lambda: None
    # Called when no call is left; does not block.
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What connections may do."""

    # Connections at a time.
    max_connections: int = 4096

    # Largest request and response, in bytes.
    max_message_bytes: int = 256 * 2**20
    # Calls at a time on one connection; a client keeps more of them back.
    max_streams: int = 1024
    # Seconds of silence after which the server asks whether a client is there.
    keepalive_seconds: float = 60.0
    # Shortest time between a client's own such questions, in seconds.
    shortest_ping_seconds: float = 10.0
    # Bytes of all messages that have begun to arrive and were not yet taken, and as many of those that their callers do not yet take.
    max_bytes_arriving: int = 2**30
    # Seconds in which what a client has begun to send must go on, and in which it must take something of an answer.
    receive_seconds: float = 30.0
    send_seconds: float = 300.0
    # Seconds without a call, and of age, after which a connection is ended in peace; 0 for never.
    idle_seconds: float = 0.0
    age_seconds: float = 0.0
    # none, gzip or deflate.
    compression: str = "none"


class GrpcServer:
    """Serves services with health and reflection beside them."""

    def __init__(
        self,
        *,
        address: str,
        services: Sequence[Service],
        lifecycle: Lifecycle,
        intercept: Intercept | None = None,
        connection: Connection | None = None,
        metrics: ConnectionMetrics | None = None,
        tls: Tls | None = None,
    ) -> None:
        """Binds at once; speaks TLS with `tls`. Raises `ConfigurationError` when the address cannot be had."""
        self._services = services
        self._lifecycle = lifecycle
        self._server = _transport(connection or Connection(), intercept, metrics or ConnectionMetrics(CollectorRegistry()), tls)
        self._health = health.aio.HealthServicer()
        for service in services:
            service.add_to(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*(service.name for service in services), health.SERVICE_NAME, reflection.SERVICE_NAME)
        servicer = reflection.aio.ReflectionServicer(service_names=names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, self._server)
        try:
            port = self._server.listen(address)
        except (OSError, ValueError, OverflowError) as error:
            raise ConfigurationError(f"INFERENCE_LISTEN: {address} cannot be listened on; choose another address.") from error
        self.address = f"{address.rpartition(':')[0]}:{port}"

    async def start(self) -> None:
        """Answer calls from now on; every service but LIVE is NOT_SERVING in health until `refresh_health` says otherwise."""
        await self._health.set(LIVE, _SERVING)
        await self.refresh_health()
        await self._server.start()

    async def refresh_health(self) -> None:
        """Tell health what the lifecycle and the models say now."""
        ready = self._lifecycle.ready
        await self._health.set("", _SERVING if ready else _NOT_SERVING)
        for service in self._services:
            await self._health.set(service.name, _SERVING if ready and service.is_able() else _NOT_SERVING)

    async def stop(self, *, grace_seconds: float, drain_seconds: float, hurry: asyncio.Event) -> None:
        """Leave, drain, end.

        Says "not ready" and goes on serving for `grace_seconds`, so that load balancers turn away; then refuses new calls with
        UNAVAILABLE and waits up to `drain_seconds` for those in flight; then cancels what is left. `hurry` ends the waits.
        """
        self._lifecycle.advance(Phase.LEAVING)
        await self._health.enter_graceful_shutdown()
        _log.info("leaving", grace_seconds=grace_seconds, in_flight=self._lifecycle.in_flight)
        await _first_of(hurry.wait(), timeout=grace_seconds)
        self._lifecycle.advance(Phase.DRAINING)
        self._server.leave()
        _log.info("draining", drain_seconds=drain_seconds, in_flight=self._lifecycle.in_flight)
        await _first_of(hurry.wait(), self._lifecycle.idle(), timeout=drain_seconds)
        if self._lifecycle.in_flight:
            _log.warning("cancelling", in_flight=self._lifecycle.in_flight)
        else:
            await _first_of(hurry.wait(), self._server.flushed(), timeout=drain_seconds)
        await self._server.stop()
        await _first_of(self._lifecycle.idle(), timeout=_LAST_SECONDS)


def _transport(connection: Connection, intercept: Intercept | None, metrics: ConnectionMetrics, tls: Tls | None) -> Http2Server:
    return Http2Server(
        connections=ConnectionLimits(
            most_streams=connection.max_streams,
            keepalive_seconds=connection.keepalive_seconds,
            shortest_ping_seconds=connection.shortest_ping_seconds,
            receive_seconds=connection.receive_seconds,
            send_seconds=connection.send_seconds,
            idle_seconds=connection.idle_seconds,
            age_seconds=connection.age_seconds,
        ),
        limits=ServerLimits(
            most_connections=connection.max_connections,
            # Messages over the limit are refused with words and a count; the transport itself takes none that is twice as large.
            most_message_bytes=min(2 * connection.max_message_bytes, _LARGEST_MESSAGE),
            most_bytes_arriving=connection.max_bytes_arriving,
            most_bytes_leaving=connection.max_bytes_arriving,
            response_encoding="" if connection.compression == "none" else connection.compression,
        ),
        intercept=intercept,
        observer=metrics,
        tls=tls,
    )


async def _first_of(*waits: Any, timeout: float) -> None:  # noqa: ASYNC109 - a bound of the wait, not of the work
    """Wait until one of them ends or the time is up; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
