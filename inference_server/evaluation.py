"""Composes the tasks as the server does, with the models that they need alone, and measures them on data whose answers are known."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from inference_server.errors import ConfigurationError, NotFound
from inference_server.model_serving import serving_models
from inference_server.models.builders import BUILDERS
from inference_server.scheduler.port import Caller
from inference_server.scheduler.registry import ServingModels
from inference_server.served import DOCUMENT_MODELS, document_reader, lab_classifier
from inference_server.settings import Settings
from inference_server.storage.storage import Storage
from inference_server.tasks.documents import evaluation as documents
from inference_server.tasks.documents.truth import known_documents
from inference_server.tasks.labs import evaluation as labs

Progress = Callable[[int, int], None]
_CALLER = Caller(client="evaluation")


async def evaluate_labs(table: Path, settings: Settings, progress: Progress, *, folds: int = 0) -> labs.LabFigures:
    """Match the tests of a table; with `folds`, each part of them with the names of the others reviewed.

    `progress` gets how many are done, and of how many. Raises `InferenceError`.
    """
    gold = labs.read_gold(table)
    async with _loaded(settings, settings.lab_model) as models:
        classifier = lab_classifier(settings, models)
        await classifier.start()
        return await labs.evaluate(classifier, gold, _CALLER, lambda done: progress(done, len(gold)), folds=folds)


async def evaluate_documents(folder: Path, settings: Settings, progress: Progress) -> tuple[documents.DocumentFigures, list[Path]]:
    """Read the documents of a folder; also those that were left out. `progress` is as above. Raises `InferenceError`."""
    known, left_out = known_documents(folder)
    async with _loaded(settings, *DOCUMENT_MODELS) as models:
        # Nothing is read by its address, and every page is answered for in the figures.
        reader = document_reader(settings, models, Storage(read_roots=(), write_roots=()), lambda limit: None)
        try:
            return await documents.evaluate(reader, known, _CALLER, lambda done: progress(done, len(known))), left_out
        finally:
            reader.processes.close()


@asynccontextmanager
async def _loaded(settings: Settings, *names: str) -> AsyncIterator[ServingModels]:
    models = serving_models(settings, CollectorRegistry())
    try:
        for name in names:
            await _load(models, name, settings.models)
        yield models
    finally:
        await models.close(grace_seconds=0)


async def _load(models: ServingModels, name: str, folder: Path) -> None:
    try:
        await models.load(name)
    except NotFound as error:
        raise ConfigurationError(
            f"INFERENCE_MODELS (--models): {folder} lacks the model {name}. Make it there: inference-server models build --models {folder}"
            f"{'' if name in BUILDERS else ', or models import-bert for one of your own'}"
        ) from error
