"""The gRPC server's life: it listens, becomes ready, leaves, drains, ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from inference_server.errors import ConfigurationError
from inference_server.service.lifecycle import Lifecycle, Phase

_log = structlog.get_logger()

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_COMPRESSIONS = {"none": grpc.Compression.NoCompression, "deflate": grpc.Compression.Deflate, "gzip": grpc.Compression.Gzip}

# Seconds given to calls that were cancelled because the drain took too long.
_LAST_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Service:
    """One gRPC service to offer."""

    # Full name, such as lamina.v1.SlideService.
    name: str
    # Adds the servicer to a server: the generated add_XServicer_to_server with the servicer bound.
    add_to: Callable[[grpc.aio.Server], None]
    # Whether it could answer now, the models that it needs considered.
    is_able: Callable[[], bool] = lambda: True


@dataclass(frozen=True, kw_only=True)
class Connection:
    """What connections may do."""

    # Largest request and response, in bytes.
    max_message_bytes: int = 256 * 2**20
    # Calls at a time on one connection; a client keeps more of them back.
    max_streams: int = 1024
    # Seconds of silence after which the server asks whether a client is there.
    keepalive_seconds: float = 60.0
    # Shortest time between a client's own such questions, in seconds.
    shortest_ping_seconds: float = 10.0
    # How responses are compressed for clients that take it: none, deflate or gzip. Compressed requests are always taken.
    response_compression: str = "none"

    def options(self) -> list[tuple[str, int]]:
        """The same, in gRPC's words."""
        return [
            # Messages over the limit are refused by us, with words and a count; gRPC itself takes none that is twice as large.
            ("grpc.max_receive_message_length", min(2 * self.max_message_bytes, 2**31 - 1)),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_concurrent_streams", self.max_streams),
            ("grpc.keepalive_time_ms", round(self.keepalive_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.default_compression_algorithm", int(_COMPRESSIONS[self.response_compression])),
            ("grpc.http2.min_ping_interval_without_data_ms", round(self.shortest_ping_seconds * 1000)),
            # Two servers on one port would share its calls at random.
            ("grpc.so_reuseport", 0),
        ]


class GrpcServer:
    """Serves services with health and reflection beside them."""

    def __init__(
        self,
        *,
        address: str,
        services: Sequence[Service],
        lifecycle: Lifecycle,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        connection: Connection | None = None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """Binds at once; speaks TLS with `credentials`. Raises `ConfigurationError` when the address cannot be had."""
        self._services = services
        self._lifecycle = lifecycle
        self._server = grpc.aio.server(interceptors=interceptors, options=(connection or Connection()).options())
        self._health = health.aio.HealthServicer()
        for service in services:
            service.add_to(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*(service.name for service in services), health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        try:
            listen = (
                partial(self._server.add_secure_port, server_credentials=credentials) if credentials else self._server.add_insecure_port
            )
            port = listen(address)
        except RuntimeError as error:
            raise ConfigurationError(f"INFERENCE_LISTEN: {address} cannot be listened on; choose another address.") from error
        self.address = f"{address.rpartition(':')[0]}:{port}"

    async def start(self) -> None:
        """Answer calls from now on; every service is NOT_SERVING in health until `refresh_health`."""
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
        _log.info("draining", drain_seconds=drain_seconds, in_flight=self._lifecycle.in_flight)
        await _first_of(hurry.wait(), self._lifecycle.idle(), timeout=drain_seconds)
        if self._lifecycle.in_flight:
            _log.warning("cancelling", in_flight=self._lifecycle.in_flight)
        await self._server.stop(grace=None)
        await _first_of(self._lifecycle.idle(), timeout=_LAST_SECONDS)


async def _first_of(*waits: Any, timeout: float) -> None:  # noqa: ASYNC109 - a bound of the wait, not of the work
    """Wait until one of them ends or the time is up; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
