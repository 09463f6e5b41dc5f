"""The services of the tasks, put together as the settings have them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog
from lamina.v1 import documents_pb2_grpc, labs_pb2_grpc, slides_pb2_grpc
from prometheus_client import CollectorRegistry

from inference_server.allocator import Reuse
from inference_server.errors import InferenceError
from inference_server.scheduler.registry import ServingModels
from inference_server.service.labs import LabServicer
from inference_server.service.metrics.calls import CallMetrics
from inference_server.service.server import Service
from inference_server.settings import Settings
from inference_server.storage.storage import Storage
from inference_server.tasks.builtin import builtin_facts
from inference_server.tasks.labs.catalogue.importing import DEFAULT_MODEL
from inference_server.tasks.labs.classifier import LabClassifier
from inference_server.tasks.labs.limits import Limits as LabLimits
from inference_server.threads import keep_opencv_single

if TYPE_CHECKING:
    from inference_server.tasks.documents.reader import DocumentReader

_log = structlog.get_logger()
SLIDES, DOCUMENTS, LABS = "lamina.v1.SlideService", "lamina.v1.DocumentService", "lamina.v1.LabService"
_SLIDE_MODELS = ("he_baseline",)
DOCUMENT_MODELS = ("ppocrv6_small_det", "ppocrv6_small_rec")


def task_services(
    settings: Settings, models: ServingModels, labs: LabClassifier, metrics: CallMetrics, registry: CollectorRegistry, memory: Reuse
) -> list[Service]:
    """Those that the settings name. `memory`: the process' one."""
    storage = Storage(read_roots=settings.read_roots, write_roots=settings.write_roots, allow_http=settings.allow_http)
    services: dict[str, Callable[[], Service]] = {
        "slides": lambda: _slides(settings, models, storage, memory),
        "documents": lambda: _documents(settings, models, storage, metrics, registry, memory),
        "labs": lambda: _labs(labs),
    }
    return [compose() for name, compose in services.items() if name in settings.services]


def left_out(settings: Settings) -> frozenset[str]:
    """Built-in models that no service needs which is served."""
    needed = {"slides": _SLIDE_MODELS, "documents": DOCUMENT_MODELS, "labs": (DEFAULT_MODEL,)}
    return frozenset(name for service, names in needed.items() for name in names if service not in settings.services) - {settings.lab_model}


def degraded(settings: Settings, models: ServingModels, labs: LabClassifier) -> dict[str, str]:
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


def _slides(settings: Settings, models: ServingModels, storage: Storage, memory: Reuse) -> Service:
    # Only a server of slides has their readers in memory; the same for documents.
    from inference_server.service.slides import SlideServicer
    from inference_server.tasks.slides.analysis import SlideAnalyzer
    from inference_server.tasks.slides.manifest import wrong
    from inference_server.tasks.slides.readers.staging import Staging
    from inference_server.tasks.slides.values import SlideLimits

    # The first job that needs one would fail by it, perhaps long after it was put there.
    for name, reason in wrong(settings.models).items():
        _log.warning("manifest_refused", analysis=name, reason=reason)
    keep_opencv_single()
    limits = SlideLimits(
        most_slide_pixels=settings.max_slide_pixels,
        most_image_pixels=settings.max_image_pixels,
        most_tile_pixels=settings.max_tile_pixels,
        most_request_pixels=settings.max_request_pixels,
        most_staged_bytes=settings.max_staged_bytes,
    )
    staging = Staging(storage, most_bytes=limits.most_staged_bytes, folder=settings.staging)
    analyzer = SlideAnalyzer(inference=models, storage=storage, models=settings.models, limits=limits, staging=staging, memory=memory)
    servicer = SlideServicer(analyzer)
    return Service(
        name=SLIDES,
        add_to=partial(slides_pb2_grpc.add_SlideServiceServicer_to_server, servicer),
        is_able=lambda: all(map(models.is_ready, _SLIDE_MODELS)),
        sweep=analyzer.sweep,
    )


def _documents(
    settings: Settings, models: ServingModels, storage: Storage, metrics: CallMetrics, registry: CollectorRegistry, memory: Reuse
) -> Service:
    from inference_server.service.documents import DocumentServicer
    from inference_server.service.metrics.pdf import PdfMetrics

    pdf_metrics = PdfMetrics(registry)
    reader = document_reader(settings, models, storage, metrics.limit_refused, memory, pdf_metrics.ended)
    pdf_metrics.watch(lambda: reader.processes.count)
    servicer = DocumentServicer(reader)
    return Service(
        name=DOCUMENTS,
        add_to=partial(documents_pb2_grpc.add_DocumentServiceServicer_to_server, servicer),
        is_able=lambda: all(map(models.is_ready, DOCUMENT_MODELS)),
        close=reader.processes.close,
    )


def document_reader(
    settings: Settings,
    models: ServingModels,
    storage: Storage,
    refused: Callable[[str], None],
    memory: Reuse | None = None,
    ended: Callable[[str], None] = lambda reason: None,
) -> DocumentReader:
    """The documents task with the limits of the settings; `refused` is told the limit that a page passed; `memory`: the process' one.

    `ended` is told why a process for PDFs ended.
    """
    from inference_server.tasks.documents.pdf.processes import PdfProcesses
    from inference_server.tasks.documents.reader import DocumentReader
    from inference_server.tasks.documents.values import Limits as DocumentLimits

    keep_opencv_single()
    limits = DocumentLimits(
        most_bytes=settings.max_document_bytes,
        most_pages=settings.max_document_pages,
        most_page_pixels=settings.max_page_pixels,
        most_page_seconds=settings.max_page_seconds,
        most_document_seconds=settings.max_document_seconds,
    )
    processes = PdfProcesses(most=settings.pdf_processes, most_bytes=settings.max_pdf_memory_bytes, ended=ended)
    return DocumentReader(models, storage, settings.models, limits=limits, refused=refused, memory=memory, processes=processes)


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
