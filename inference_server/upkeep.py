"""What is done to a model repository while nothing serves it: building, importing, training, listing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from inference_server.errors import InferenceError
from inference_server.model_serving import serving_models
from inference_server.models.builders import BUILDERS
from inference_server.models.builders.bert import build_from_checkpoint
from inference_server.models.listing import described
from inference_server.models.repository import ModelRepository
from inference_server.scheduler.registry import ServingModels
from inference_server.settings import Settings
from inference_server.tasks.labs.catalogue.catalogue import FOLDER
from inference_server.tasks.labs.catalogue.importing import ImportReport
from inference_server.tasks.labs.catalogue.importing import import_catalogue as import_into
from inference_server.tasks.labs.classifier import RANKER
from inference_server.tasks.labs.matching.ranker import keep_ranker
from inference_server.tasks.labs.training.train import train
from inference_server.tasks.slides.manifest import wrong

_log = structlog.get_logger()


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
    refused = wrong(models)
    listed = [described(ModelRepository(models), name) for name in ModelRepository(models).names()]
    # What is wrong with the model itself is told first.
    return [(*each[:-1], refused.get(each[0], each[-1]) if each[1] else each[-1]) for each in listed]
