"""The reader with the built-in models, run directly, and over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import grpc.aio
import pytest
from lamina.v1 import documents_pb2_grpc
from prometheus_client import CollectorRegistry

from inference_server.models.builders.ppocr import build_detector, build_recognizer
from inference_server.service.documents import DocumentServicer
from inference_server.service.interceptors import CallInterceptor
from inference_server.service.lifecycle import BytesInFlight, Lifecycle
from inference_server.service.metrics.calls import CallMetrics
from inference_server.service.server import GrpcServer, Service
from inference_server.storage.storage import Storage
from inference_server.tasks.documents.reader import DocumentReader
from tests.support.models.direct_inference import RecordedInference


@pytest.fixture(scope="session")
def text_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("text-models")
    build_detector(models)
    build_recognizer(models)
    return models


@pytest.fixture(scope="session")
def loaded_inference(text_models: Path) -> RecordedInference:
    return RecordedInference(text_models)


@pytest.fixture
def inference(loaded_inference: RecordedInference) -> RecordedInference:
    loaded_inference.requests.clear()
    return loaded_inference


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """A folder that may be read."""
    folder = tmp_path / "documents"
    folder.mkdir()
    return folder


@pytest.fixture
def reader(inference: RecordedInference, text_models: Path, documents: Path) -> DocumentReader:
    return DocumentReader(inference, Storage(read_roots=(str(documents),), write_roots=()), text_models)


@pytest.fixture
async def stub(reader: DocumentReader) -> AsyncIterator[documents_pb2_grpc.DocumentServiceStub]:
    lifecycle = Lifecycle()
    interceptor = CallInterceptor(
        lifecycle=lifecycle, bytes_in_flight=BytesInFlight(most=2**28), metrics=CallMetrics(CollectorRegistry(), "test")
    )
    add_to = partial(documents_pb2_grpc.add_DocumentServiceServicer_to_server, DocumentServicer(reader))
    service = Service(name="lamina.v1.DocumentService", add_to=add_to)
    server = GrpcServer(address="127.0.0.1:0", services=[service], lifecycle=lifecycle, intercept=interceptor.wrap)
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield documents_pb2_grpc.DocumentServiceStub(channel)
    await server.stop(grace_seconds=0, drain_seconds=0, hurry=asyncio.Event())
