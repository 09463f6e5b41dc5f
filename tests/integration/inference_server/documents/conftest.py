"""The reader with the built-in models, run directly."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_server.models.builders.ppocr import build_detector, build_recognizer
from inference_server.storage import Storage
from inference_server.tasks.documents.reader import DocumentReader
from tests.support.direct_inference import RecordedInference


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
