"""The composition root: builds the parts from the settings and joins them. The only file that names concrete classes."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import structlog
from lamina.v1 import documents_pb2_grpc, labs_pb2_grpc, slides_pb2_grpc
from prometheus_client import CollectorRegistry

from inference_server.application import Application, broken_models, version
from inference_server.engine.building import EngineBuilds
from inference_server.engine.cuda import PeerMemory
from inference_server.engine.gpu_monitor import GpuMonitor
from inference_server.engine.measurements import MeasurementCache
from inference_server.engine.runtimes import PLANS, Runtimes, discover
from inference_server.engine.selection import EngineSelector
from inference_server.errors import ConfigurationError, InferenceError
from inference_server.logs import LogLevels, configure_logging
from inference_server.models.builders import BUILDERS
from inference_server.models.builders.bert import build_from_checkpoint
from inference_server.models.listing import described
from inference_server.models.repository import ModelRepository
from inference_server.scheduler.admission import QueueLimits
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.registry import ServingModels
from inference_server.scheduler.tracing import Tracer
from inference_server.service.connection_metrics import ConnectionMetrics
from inference_server.service.control import Control
from inference_server.service.cuda_memory import CudaMemory
from inference_server.service.device_metrics import DeviceCollector
from inference_server.service.documents import DocumentServicer
from inference_server.service.http import HttpServer, health_app
from inference_server.service.interceptors import CallInterceptor
from inference_server.service.labs import LabServicer
from inference_server.service.lifecycle import BytesInFlight, Lifecycle
from inference_server.service.metrics import CallMetrics, ReadinessCollector
from inference_server.service.open_inference import SERVICE, OpenInferenceServicer, ServerParts, add_to_server
from inference_server.service.request_limits import RequestLimits
from inference_server.service.security import SecurityOptions, is_loopback, secure
from inference_server.service.server import Connection, GrpcServer, Service
from inference_server.service.shared_memory import SharedMemory
from inference_server.service.slides import SlideServicer
from inference_server.service.trace_settings import TraceSettings
from inference_server.service.tracing import RequestTraces
from inference_server.settings import Settings
from inference_server.storage import Storage
from inference_server.tasks.builtin import builtin_facts
from inference_server.tasks.documents.reader import DocumentReader
from inference_server.tasks.documents.values import Limits as DocumentLimits
from inference_server.tasks.labs.catalogue import FOLDER
from inference_server.tasks.labs.classifier import RANKER, LabClassifier
from inference_server.tasks.labs.classifier import Limits as LabLimits
from inference_server.tasks.labs.importing import DEFAULT_MODEL, ImportReport
from inference_server.tasks.labs.importing import import_catalogue as import_into
from inference_server.tasks.labs.ranker import keep_ranker
from inference_server.tasks.labs.training.train import train
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.values import SlideLimits

SLIDES, DOCUMENTS, LABS = "lamina.v1.SlideService", "lamina.v1.DocumentService", "lamina.v1.LabService"
_SLIDE_MODELS = ("he_baseline",)
DOCUMENT_MODELS = ("ppocrv6_small_det", "ppocrv6_small_rec")
_SWITCH_SECONDS = 0.0005
_log = structlog.get_logger()


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends the waits. Raises `ConfigurationError` before it serves."""
    levels = configure_logging(settings.log_level)
    # Engines' threads need the interpreter for moments only, between computing and computing: let them have it soon.
    sys.setswitchinterval(_SWITCH_SECONDS)
    application = compose(settings, levels)
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await application.run(stop, hurry)


def compose(settings: Settings, levels: LogLevels | None = None) -> Application:
    """Build the parts; `levels` are those of the logs that were configured. Raises `ConfigurationError`."""
    security = secure(_security(settings))
    registry = CollectorRegistry()
    lifecycle = Lifecycle(most_calls=settings.max_calls)
    registry.register(ReadinessCollector(lambda: lifecycle.ready))
    registry.register(DeviceCollector(GpuMonitor((settings.device,)).readings))
    models = serving_models(settings, registry)
    metrics = CallMetrics(registry, version(), limits=settings.limits())
    bytes_in_flight = BytesInFlight(most=settings.max_bytes_in_flight, observe=metrics.bytes_in_flight)
    labs = lab_classifier(settings, models)
    tracer = _tracer(settings)
    trace_settings = TraceSettings(available=tracer is not None, rate=settings.trace_rate, count=settings.trace_count)
    traces = RequestTraces(tracer, trace_settings) if tracer else None
    control = Control(models, levels or LogLevels(settings.log_level), trace_settings, allowed=_may_control(settings))
    inference = _open_inference(settings, models, lifecycle, bytes_in_flight, control, metrics, traces)
    calls = CallInterceptor(
        lifecycle=lifecycle,
        bytes_in_flight=bytes_in_flight,
        metrics=metrics,
        access=security.access,
        limits=_request_limits(settings),
        levels=levels,
    )
    grpc = GrpcServer(
        address=settings.listen,
        services=[inference, *_tasks(settings, models, labs, metrics)],
        lifecycle=lifecycle,
        intercept=traces.around(calls.wrap) if traces else calls.wrap,
        connection=Connection(
            max_connections=settings.max_connections,
            max_message_bytes=settings.max_message_bytes,
            max_streams=settings.max_streams,
            max_bytes_arriving=settings.max_bytes_in_flight,
            receive_seconds=settings.receive_seconds,
            send_seconds=settings.send_seconds,
            idle_seconds=settings.connection_idle_seconds,
            age_seconds=settings.connection_age_seconds,
            compression=settings.response_compression,
        ),
        metrics=ConnectionMetrics(registry, limit_refused=metrics.limit_refused),
        tls=security.tls,
    )
    broken, degraded = partial(broken_models, models), partial(_degraded, settings, models, labs)
    health = health_app(lifecycle=lifecycle, registry=registry, broken_models=broken, degraded=degraded)
    return Application(
        settings=settings,
        access=security.access,
        lifecycle=lifecycle,
        models=models,
        labs=labs,
        grpc=grpc,
        http=HttpServer(health, address=settings.http),
        close_traces=tracer.close if tracer else lambda: None,
        left_out=_left_out(settings),
    )


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


def _tasks(settings: Settings, models: ServingModels, labs: LabClassifier, metrics: CallMetrics) -> list[Service]:
    storage = Storage(read_roots=settings.read_roots, write_roots=settings.write_roots, allow_http=settings.allow_http)
    services: dict[str, Callable[[], Service]] = {
        "slides": lambda: _slides(settings, models, storage),
        "documents": lambda: _documents(settings, models, storage, metrics),
        "labs": lambda: _labs(labs),
    }
    return [compose() for name, compose in services.items() if name in settings.services]


def _left_out(settings: Settings) -> frozenset[str]:
    """Built-in models that no service needs which is served."""
    needed = {"slides": _SLIDE_MODELS, "documents": DOCUMENT_MODELS, "labs": (DEFAULT_MODEL,)}
    return frozenset(name for service, names in needed.items() for name in names if service not in settings.services) - {settings.lab_model}


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


def _request_limits(settings: Settings) -> RequestLimits:
    return RequestLimits(
        message_bytes=settings.max_message_bytes,
        tensors=settings.max_tensors,
        name_characters=settings.max_name_characters,
        uri_characters=settings.max_uri_characters,
    )


def _degraded(settings: Settings, models: ServingModels, labs: LabClassifier) -> dict[str, str]:
    """Why a service does not answer, by its name; the others do."""
    reasons = {
        "slides": (SLIDES, _lack(models, *_SLIDE_MODELS)),
        "documents": (DOCUMENTS, _lack(models, *DOCUMENT_MODELS)),
        "labs": (LABS, _lack(models, settings.lab_model) or labs.absence),
    }
    return {service: reason for name, (service, reason) in reasons.items() if reason and name in settings.services}


def _lack(models: ServingModels, *names: str) -> str:
    try:
        for name in names:
            builtin_facts(models, name)
    except InferenceError as error:
        return str(error)
    return ""


def serving_models(settings: Settings, registry: CollectorRegistry) -> ServingModels:
    """The models of the repository, none of them loaded yet. Raises `ConfigurationError`."""
    if not settings.models.is_dir():
        raise ConfigurationError(
            f"INFERENCE_MODELS (--models): {settings.models} is no folder. "
            f"Make it with the built-in models in it: inference-server models build --models {settings.models}"
        )
    devices = dict.fromkeys((settings.device, "cpu"))
    cache = MeasurementCache(settings.engine_cache / "measurements")
    engines = {device: EngineSelector(runtimes(settings, device), cache=cache) for device in devices}
    engines[settings.device].check_pin(settings.engine)
    limits = QueueLimits(max_requests=settings.max_queue_requests, max_bytes=settings.max_queue_bytes)
    options = SchedulingOptions(
        client_weights=settings.client_weights,
        model_memory_bytes=settings.model_memory_bytes,
        response_cache_bytes=settings.response_cache_bytes,
        gpu_memory_bytes=settings.gpu_memory_bytes,
        cpu_fallback=settings.fallback == "cpu",
    )
    builds = settings.device != "cpu" and settings.build_engines == "background"
    return ServingModels(
        ModelRepository(settings.models),
        engines,
        metrics=registry,
        limits=limits,
        engine=settings.engine,
        options=options,
        builder=EngineBuilds(settings.engine_cache / PLANS) if builds else None,
    )


def runtimes(settings: Settings, device: str) -> Runtimes:
    """The engines of a device, as the settings have them. Raises `ConfigurationError`."""
    return discover(
        device=device,
        threads=settings.threads,
        engine_cache=settings.engine_cache,
        precisions=settings.tensorrt,
        most_bytes=settings.gpu_memory_bytes,
    )


def _cuda_memory(settings: Settings) -> CudaMemory:
    if settings.device == "cpu":
        return CudaMemory(reason="the server runs on the CPU")
    if not settings.cuda_shared_memory:
        return CudaMemory(reason="the operator has not turned it on with INFERENCE_CUDA_SHARED_MEMORY")
    return CudaMemory(PeerMemory(), devices=(int(settings.device.removeprefix("cuda:")),))


def _open_inference(
    settings: Settings,
    models: ServingModels,
    lifecycle: Lifecycle,
    bytes_in_flight: BytesInFlight,
    control: Control,
    metrics: CallMetrics,
    traces: RequestTraces | None,
) -> Service:
    parts = ServerParts(
        models=models,
        lifecycle=lifecycle,
        bytes_in_flight=bytes_in_flight,
        memory=SharedMemory(settings.shared_memory, most_regions=settings.max_shared_memory_regions),
        cuda_memory=_cuda_memory(settings),
        control=control,
        version=version(),
        most_shared_bytes=settings.max_message_bytes,
        most_stream_requests=settings.max_stream_requests,
        refused=metrics.limit_refused,
        waits=metrics.limit_waited,
        traces=traces,
    )
    return Service(name=SERVICE, add_to=partial(add_to_server, OpenInferenceServicer(parts)))


def _slides(settings: Settings, models: ServingModels, storage: Storage) -> Service:
    limits = SlideLimits(
        most_slide_pixels=settings.max_slide_pixels,
        most_image_pixels=settings.max_image_pixels,
        most_tile_pixels=settings.max_tile_pixels,
        most_request_pixels=settings.max_request_pixels,
        most_staged_bytes=settings.max_staged_bytes,
    )
    servicer = SlideServicer(SlideAnalyzer(inference=models, storage=storage, models=settings.models, limits=limits))
    return Service(
        name=SLIDES,
        add_to=partial(slides_pb2_grpc.add_SlideServiceServicer_to_server, servicer),
        is_able=lambda: all(map(models.is_ready, _SLIDE_MODELS)),
    )


def _documents(settings: Settings, models: ServingModels, storage: Storage, metrics: CallMetrics) -> Service:
    servicer = DocumentServicer(document_reader(settings, models, storage, metrics.limit_refused))
    return Service(
        name=DOCUMENTS,
        add_to=partial(documents_pb2_grpc.add_DocumentServiceServicer_to_server, servicer),
        is_able=lambda: all(map(models.is_ready, DOCUMENT_MODELS)),
    )


def document_reader(settings: Settings, models: ServingModels, storage: Storage, refused: Callable[[str], None]) -> DocumentReader:
    """The documents task with the limits of the settings; `refused` is told the limit that a page passed."""
    limits = DocumentLimits(
        most_bytes=settings.max_document_bytes, most_pages=settings.max_document_pages, most_page_pixels=settings.max_page_pixels
    )
    return DocumentReader(models, storage, settings.models, limits=limits, refused=refused)


def lab_classifier(settings: Settings, models: ServingModels) -> LabClassifier:
    """The lab task with the limits of the settings."""
    return LabClassifier(
        models,
        settings.models,
        model=settings.lab_model,
        limits=LabLimits(
            most_items=settings.max_lab_tests,
            most_characters=settings.max_lab_characters,
            most_embedded_characters=settings.max_text_characters,
            most_candidates=settings.max_candidates,
        ),
    )


def _labs(labs: LabClassifier) -> Service:
    return Service(
        name=LABS,
        add_to=partial(labs_pb2_grpc.add_LabServiceServicer_to_server, LabServicer(labs)),
        is_able=lambda: not labs.absence,
    )


def builders(models: Path) -> Mapping[str, Callable[[], Path]]:
    """What makes each built-in model in a repository; each skips what is up to date."""
    return {name: partial(build, models) for name, build in BUILDERS.items()}


async def import_catalogue(table: Path, settings: Settings, progress: Callable[[int, int], None]) -> ImportReport:
    """Take a Loinc.csv into the repository's catalogue, and embed its names when the encoder is there. Raises `InvalidCatalogue`."""
    models = serving_models(settings, CollectorRegistry())
    try:
        await models.load(settings.lab_model)
        encoder: ServingModels | None = models
    except InferenceError as error:
        _log.warning("names_are_embedded_later", reason=str(error))
        encoder = None
    try:
        return await import_into(table, settings.models, progress, inference=encoder, model=settings.lab_model)
    finally:
        await models.close(grace_seconds=0)


async def train_labs(settings: Settings, progress: Callable[[str, int, int], None]) -> Mapping[str, object]:
    """Train the ranker of lab tests on the repository's catalogue and keep it there: what it was trained on, and how good it is."""
    models = serving_models(settings, CollectorRegistry())
    try:
        await models.load(settings.lab_model)
        ranker = await train(models, settings.models, model=settings.lab_model, progress=progress)
    finally:
        await models.close(grace_seconds=0)
    keep_ranker(settings.models / FOLDER / RANKER, ranker)
    return ranker.provenance


def import_bert(checkpoint: Path, settings: Settings, name: str) -> Path:
    """Make a model of the repository from a BERT checkpoint's folder. Raises `ConfigurationError`."""
    return build_from_checkpoint(checkpoint, settings.models, name)


def list_models(models: Path) -> list[tuple[str, ...]]:
    """Name, versions, batch size and state of each model of a repository, as text. Raises `ConfigurationError`."""
    return [described(ModelRepository(models), name) for name in ModelRepository(models).names()]
