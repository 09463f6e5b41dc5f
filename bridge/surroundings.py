"""What surrounds a bridge, as the settings name it: the machine that it runs on, and who follows its work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bridge.hosting.ecs import TaskProtection
from bridge.hosting.machine import Machine
from bridge.hosting.metadata import LocalService
from bridge.hosting.spot import SpotWatch
from bridge.settings import Settings
from bridge.tracing.port import NullTracer, Tracer
from bridge.transports.checks import check_installed

if TYPE_CHECKING:
    from bridge.inference.credentials import ServerTrust


def machine(settings: Settings, *, busy: Callable[[], bool]) -> Machine:
    """What the machine that we run on tells and is told."""
    protection = watch = None
    if settings.ecs_agent_uri and settings.ecs_protection:
        agent = LocalService(settings.ecs_agent_uri, variable="ECS_AGENT_URI")
        protection = TaskProtection(agent, busy=busy, minutes=settings.ecs_protection_minutes)
    if settings.spot_watch != "off":
        service = LocalService(settings.spot_metadata, variable="BRIDGE_SPOT_METADATA")
        watch = SpotWatch(service, rebalance=settings.spot_watch == "rebalance")
    return Machine(protection=protection, watch=watch)


def tracer(settings: Settings) -> Tracer:
    """Who follows the work. Raises `ConfigurationError`."""
    if settings.traces == "off":
        return NullTracer()
    check_installed("opentelemetry.exporter.otlp.proto.grpc", "otel", "BRIDGE_TRACES")
    from bridge.tracing.otel import Collector, OpenTelemetryTracer

    return OpenTelemetryTracer(
        Collector(
            endpoint=settings.traces_endpoint,
            headers=settings.traces_headers.get_secret_value(),
            service=settings.traces_service,
            ratio=settings.traces_ratio,
        )
    )


@asynccontextmanager
async def open_tracer(settings: Settings) -> AsyncIterator[Tracer]:
    """Who follows the work, until all is told. Raises `ConfigurationError`."""
    opened = tracer(settings)
    try:
        yield opened
    finally:
        await opened.close()


def server_trust(settings: Settings) -> ServerTrust:
    """Whom the inference server has to be, and who we are there."""
    from bridge.inference.credentials import ServerTrust

    return ServerTrust(
        tls=settings.inference_tls,
        ca=settings.inference_tls_ca,
        certificate=settings.inference_tls_certificate,
        key=settings.inference_tls_key,
        token=settings.inference_token.get_secret_value(),
        token_file=settings.inference_token_file,
        insecure=settings.inference_insecure,
    )
