from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from inference_server.tasks.labs.classifier import LabClassifier
from tests.support.models.built_models import built_models
from tests.support.models.direct_inference import DirectInference

MODEL = "all_minilm_l6_v2"


@pytest.fixture(scope="session")
def prepared_models() -> Path:
    """The sentence encoder, and the built-in catalogue's names embedded; kept between runs."""
    models = built_models(MODEL)
    asyncio.run(LabClassifier(DirectInference(models), models).start())
    return models


@pytest.fixture
def models(prepared_models: Path, tmp_path: Path) -> Path:
    """A repository of one's own, so that its catalogue and reviewed names may be changed."""
    own = tmp_path / "models"
    (own / "_catalogue").mkdir(parents=True)
    (own / MODEL).symlink_to(prepared_models / MODEL)
    for vectors in (prepared_models / "_catalogue").glob("vectors-*.npz"):
        shutil.copy(vectors, own / "_catalogue")
    return own


@pytest.fixture
def labs(models: Path) -> LabClassifier:
    return LabClassifier(DirectInference(models), models)
