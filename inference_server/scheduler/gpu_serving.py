"""A model on GPUs whose copy on the CPU can be asked for by itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from inference_server.engine.selection.selector import label
from inference_server.scheduler.dispatch.executor import PlacedEngine
from inference_server.scheduler.fallback import copy_on_cpu
from inference_server.scheduler.loading.loader import LoadedModel
from inference_server.scheduler.loading.memory import Holdings
from inference_server.scheduler.metrics.scheduler import ModelMetrics
from inference_server.scheduler.port import Device, InferenceRequest, InferenceResponse
from inference_server.scheduler.response_cache import ModelCache
from inference_server.scheduler.serving import ServedModel, Shared


class ServedOnGpu(ServedModel):
    """What the CPU alone may run waits in a line of its own, for the copy: a GPU that hangs holds up nobody who does without it."""

    def __init__(
        self, loaded: LoadedModel, copy: PlacedEngine, shared: Shared, *, metrics: ModelMetrics, cache: ModelCache | None = None
    ) -> None:
        super().__init__(loaded, shared, metrics=metrics, cache=cache)
        facts = replace(loaded.facts, engine=label(copy.engine), instances=1)
        of_copy = replace(loaded, facts=facts, placed=(copy,), memory=Holdings())
        self._on_cpu = ServedModel(of_copy, shared, metrics=metrics, statistics=self.statistics)
        on_gpu, on_cpu = self.waiting, self._on_cpu.waiting
        self.waiting = lambda: on_gpu() + on_cpu()
        metrics.waiting.set_function(self.waiting)

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Run one request on the device that may; see `port.Inference`."""
        if request.caller.device is Device.CPU:
            return await self._on_cpu.infer(request)
        return await super().infer(request)

    async def close(self, *, grace_seconds: float) -> None:
        """See `ServedModel`; of both lines at the same time."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._on_cpu.close(grace_seconds=grace_seconds))
            await super().close(grace_seconds=grace_seconds)


def served_model(loaded: LoadedModel, shared: Shared, *, metrics: ModelMetrics, cache: ModelCache | None) -> ServedModel:
    """What serves a loaded version."""
    if copy := copy_on_cpu(loaded.placed):
        return ServedOnGpu(loaded, copy, shared, metrics=metrics, cache=cache)
    return ServedModel(loaded, shared, metrics=metrics, cache=cache)
