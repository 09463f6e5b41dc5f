"""Serves a repository of models in the test's own process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from inference_server.engine.selection.selector import EngineSelector
from inference_server.models.repository import ModelRepository
from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse
from inference_server.scheduler.registry import ServingModels


@asynccontextmanager
async def serving(
    root: Path, selector: EngineSelector | Mapping[str, EngineSelector], *, metrics: CollectorRegistry | None = None, **options: Any
) -> AsyncIterator[ServingModels]:
    """The models of a repository, loaded; drained at the end. `selector`: of the CPU, or by device."""
    engines = {"cpu": selector} if isinstance(selector, EngineSelector) else selector
    models = ServingModels(ModelRepository(root), engines, metrics=metrics or CollectorRegistry(), **options)
    await models.load_all()
    try:
        yield models
    finally:
        await models.close(grace_seconds=5.0)


def ask(
    models: ServingModels, model: str = "double", *, value: float = 1.0, rows: int = 1, seconds: float | None = None, **caller: Any
) -> asyncio.Task[InferenceResponse]:
    """Begin a request of a model that takes x [n, 4]; `seconds`: its deadline from now."""
    deadline = None if seconds is None else time.monotonic() + seconds
    request = InferenceRequest(model=model, inputs={"x": np.full((rows, 4), value, np.float32)}, caller=Caller(deadline=deadline, **caller))
    return asyncio.get_running_loop().create_task(_infer(models, request))


async def _infer(models: ServingModels, request: InferenceRequest) -> InferenceResponse:
    return await models.infer(request)
