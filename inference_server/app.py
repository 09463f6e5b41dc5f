"""The composition root: builds the parts from the settings and joins them. Beside it `served` and `model_serving` name concrete classes."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector

from inference_server.allocator import Reuse, leave_to_itself, return_what_is_freed
from inference_server.application import Application, broken_models, version
from inference_server.engine.cuda import PeerMemory
from inference_server.engine.gpu_monitor import GpuMonitor
from inference_server.errors import ConfigurationError
from inference_server.logs import LogLevels, configure_logging
from inference_server.model_serving import serving_models
from inference_server.scheduler.registry import ServingModels
from inference_server.scheduler.spans import Tracer
from inference_server.served import degraded, lab_classifier, left_out, task_services
from inference_server.service.http import HttpServer, health_app
from inference_server.service.interceptors import CallInterceptor
from inference_server.service.lifecycle import BytesInFlight, Lifecycle
from inference_server.service.metrics.calls import CallMetrics, ReadinessCollector
from inference_server.service.metrics.connections import ConnectionMetrics
from inference_server.service.metrics.devices import DeviceCollector
from inference_server.service.open_inference.control import Control
from inference_server.service.open_inference.cuda_memory import CudaMemory
from inference_server.service.open_inference.servicer import SERVICE, OpenInferenceServicer, ServerParts, add_to_server
from inference_server.service.open_inference.shared_memory import SharedMemory
from inference_server.service.open_inference.trace_settings import TraceSettings
from inference_server.service.request_limits import RequestLimits
from inference_server.service.security.options import Security, SecurityOptions, is_loopback, secure
from inference_server.service.server import Connection, GrpcServer, Service
from inference_server.service.tracing import RequestTraces
from inference_server.settings import Settings
from inference_server.storage.places import Roots

_SWITCH_SECONDS = 0.0005
_LOOK_SECONDS = 1.0
_log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends the waits. Raises `ConfigurationError` before it serves."""
    levels = configure_logging(settings.log_level)
    # A mount that hangs is not waited for.
    looking = threading.Thread(target=_tell_absent_roots, args=(settings,), name="roots", daemon=True)
    looking.start()
    looking.join(_LOOK_SECONDS)
    prepare_process()
    application = dataclasses.replace(compose(settings, levels), settled=leave_to_itself)
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await application.run(stop, hurry)


def _tell_absent_roots(settings: Settings) -> None:
    """Warn of folders that nothing can be read from. What is mounted later is read from then on, so that the server starts all the same."""
    if {"slides", "documents"} & set(settings.services):
        reason = "INFERENCE_READ_ROOTS (--read-roots) names it, and it is not there or cannot be looked at; nothing is read from it so far"
        for root in Roots(names=settings.read_roots, verb="read").absent():
            _log.warning("read_root_absent", root=root, reason=reason)


def prepare_process() -> None:
    """Have memory given back and threads take turns as it suits engines, before any is loaded."""
    return_what_is_freed()
    # Engines' threads need the interpreter for moments only, between computing and computing: let them have it soon.
    sys.setswitchinterval(_SWITCH_SECONDS)


def compose(settings: Settings, levels: LogLevels | None = None) -> Application:
    """Build the parts; `levels` are those of the logs that were configured. Raises `ConfigurationError`."""
    base = _base(settings, levels)
    labs = lab_classifier(settings, base.models)
    services = [_open_inference(base), *task_services(settings, base.models, labs, base.metrics, base.registry, base.memory)]
    health = health_app(
        lifecycle=base.lifecycle,
        registry=base.registry,
        broken_models=partial(broken_models, base.models),
        degraded=partial(degraded, settings, base.models, labs),
    )
    return Application(
        settings=settings,
        access=base.security.access,
        lifecycle=base.lifecycle,
        models=base.models,
        labs=labs,
        grpc=_grpc(base, services),
        http=HttpServer(health, address=settings.http),
        close_traces=base.tracing.close,
        left_out=left_out(settings),
        sweeps=[service.sweep for service in services],
        closes=[service.close for service in services],
    )


@dataclass(frozen=True, kw_only=True)
class _Tracing:
    """What is traced, and what sends it."""

    settings: TraceSettings
    # None where traces are sent nowhere.
    requests: RequestTraces | None
    # Sends those that are left; blocks.
    close: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class _Base:
    """What services and servers stand on."""

    settings: Settings
    # Those of the logs; None where nobody configured any.
    levels: LogLevels | None
    security: Security
    lifecycle: Lifecycle
    registry: CollectorRegistry
    models: ServingModels
    metrics: CallMetrics
    bytes_in_flight: BytesInFlight
    memory: Reuse
    tracing: _Tracing


def _base(settings: Settings, levels: LogLevels | None) -> _Base:
    security = secure(_security(settings))
    lifecycle = Lifecycle(most_calls=settings.max_calls)
    registry = _registry(settings, lifecycle)
    models = serving_models(settings, registry)
    metrics = CallMetrics(registry, version(), limits=settings.limits())
    return _Base(
        settings=settings,
        levels=levels,
        security=security,
        lifecycle=lifecycle,
        registry=registry,
        models=models,
        metrics=metrics,
        bytes_in_flight=BytesInFlight(most=settings.max_bytes_in_flight, observe=metrics.bytes_in_flight),
        memory=Reuse(),
        tracing=_tracing(settings),
    )


def _grpc(base: _Base, services: Sequence[Service]) -> GrpcServer:
    calls = CallInterceptor(
        lifecycle=base.lifecycle,
        bytes_in_flight=base.bytes_in_flight,
        metrics=base.metrics,
        access=base.security.access,
        limits=_request_limits(base.settings),
        levels=base.levels,
        memory=base.memory,
    )
    traces = base.tracing.requests
    return GrpcServer(
        address=base.settings.listen,
        services=services,
        lifecycle=base.lifecycle,
        intercept=traces.around(calls.wrap) if traces else calls.wrap,
        connection=_connection(base.settings),
        metrics=ConnectionMetrics(base.registry, limit_refused=base.metrics.limit_refused),
        tls=base.security.tls,
    )


def _registry(settings: Settings, lifecycle: Lifecycle) -> CollectorRegistry:
    """With what is told of the process as a whole; its parts add their own."""
    registry = CollectorRegistry()
    # What the process takes, and when it began; on Linux.
    ProcessCollector(registry=registry)
    registry.register(ReadinessCollector(lambda: lifecycle.ready))
    registry.register(DeviceCollector(GpuMonitor((settings.device,)).readings))
    return registry


def _tracing(settings: Settings) -> _Tracing:
    tracer = _tracer(settings)
    trace_settings = TraceSettings(available=tracer is not None, rate=settings.trace_rate, count=settings.trace_count)
    requests = RequestTraces(tracer, trace_settings) if tracer else None
    return _Tracing(settings=trace_settings, requests=requests, close=tracer.close if tracer else lambda: None)


def _tracer(settings: Settings) -> Tracer | None:
    """What sends traces; None where they are sent nowhere, and then nothing of OpenTelemetry is imported. Raises `ConfigurationError`."""
    if settings.otlp_endpoint is None or settings.otlp_disabled:
        return None
    try:
        from inference_server.telemetry import OpenTelemetryTracer, otlp_exporter
    except ImportError as error:
        raise ConfigurationError(
            "INFERENCE_OTLP_ENDPOINT (--otlp-endpoint): traces need OpenTelemetry, which is not installed. "
            "Install lamina[otel], or leave the endpoint unset."
        ) from error
    return OpenTelemetryTracer(otlp_exporter(settings.otlp_endpoint), version=version())


def _may_control(settings: Settings) -> bool:
    return settings.model_control == "explicit" or (settings.model_control == "auto" and is_loopback(settings.listen))


def _security(settings: Settings) -> SecurityOptions:
    return SecurityOptions(
        listen=settings.listen,
        tls_certificate=settings.tls_certificate,
        tls_key=settings.tls_key,
        tls_client_ca=settings.tls_client_ca,
        tls_client_permissions=settings.tls_client_permissions,
        tokens=settings.tokens_file,
        insecure=settings.insecure,
    )


def _connection(settings: Settings) -> Connection:
    return Connection(
        max_connections=settings.max_connections,
        max_message_bytes=settings.max_message_bytes,
        max_streams=settings.max_streams,
        max_bytes_arriving=settings.max_bytes_in_flight,
        receive_seconds=settings.receive_seconds,
        send_seconds=settings.send_seconds,
        idle_seconds=settings.connection_idle_seconds,
        age_seconds=settings.connection_age_seconds,
        compression=settings.response_compression,
    )


def _request_limits(settings: Settings) -> RequestLimits:
    return RequestLimits(
        message_bytes=settings.max_message_bytes,
        tensors=settings.max_tensors,
        name_characters=settings.max_name_characters,
        uri_characters=settings.max_uri_characters,
    )


def _cuda_memory(settings: Settings) -> CudaMemory:
    if settings.device == "cpu":
        return CudaMemory(reason="the server runs on the CPU")
    if not settings.cuda_shared_memory:
        return CudaMemory(reason="the operator has not turned it on with INFERENCE_CUDA_SHARED_MEMORY")
    return CudaMemory(PeerMemory(), devices=(int(settings.device.removeprefix("cuda:")),))


def _open_inference(base: _Base) -> Service:
    settings = base.settings
    levels = base.levels or LogLevels(settings.log_level)
    parts = ServerParts(
        models=base.models,
        lifecycle=base.lifecycle,
        bytes_in_flight=base.bytes_in_flight,
        memory=SharedMemory(settings.shared_memory, most_regions=settings.max_shared_memory_regions),
        cuda_memory=_cuda_memory(settings),
        control=Control(base.models, levels, base.tracing.settings, allowed=_may_control(settings)),
        version=version(),
        most_shared_bytes=settings.max_message_bytes,
        most_stream_requests=settings.max_stream_requests,
        refused=base.metrics.limit_refused,
        waits=base.metrics.limit_waited,
        traces=base.tracing.requests,
    )
    return Service(name=SERVICE, add_to=partial(add_to_server, OpenInferenceServicer(parts)))
