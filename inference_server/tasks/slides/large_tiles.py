"""Large tiles, for which a model is called in parts: what an engine holds while it runs grows with the largest call, and stays."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from inference_server.engine.port import Tensor
from inference_server.scheduler.port import Inference, InferenceRequest, InferenceResponse
from inference_server.tasks.slides.events import first_failure
from inference_server.tasks.slides.findings import AnalysisPlan

# Parts that are called at a time: what they hold together is what this is about.
_AT_A_TIME = 2


async def infer(inference: Inference, request: InferenceRequest, plan: AnalysisPlan) -> InferenceResponse:
    """A model's answer for tiles with their halo, asked for in parts where the plan says so. Raises as `Inference.infer` does.

    An output of a part covers its core, rows and columns last, and is put beside those of the parts around it.
    """
    core, most = plan.tile_size, plan.most_edge
    if not most or core <= most:
        return await inference.infer(request)
    starts = range(0, core, most)
    corners = [(top, left) for top in starts for left in starts]
    answers: list[InferenceResponse] = []
    for first in range(0, len(corners), _AT_A_TIME):
        with first_failure():
            async with asyncio.TaskGroup() as group:
                some = corners[first : first + _AT_A_TIME]
                asked = [group.create_task(inference.infer(_part(request, plan, corner))) for corner in some]
        answers += [task.result() for task in asked]
    rows = [answers[first : first + len(starts)] for first in range(0, len(answers), len(starts))]
    return replace(
        answers[0],
        outputs={name: _joined([[answer.outputs[name] for answer in row] for row in rows]) for name in answers[0].outputs},
        queue_seconds=sum(answer.queue_seconds for answer in answers),
        compute_seconds=sum(answer.compute_seconds for answer in answers),
        fallback=next((answer.fallback for answer in answers if answer.fallback), ""),
    )


def _part(request: InferenceRequest, plan: AnalysisPlan, corner: tuple[int, int]) -> InferenceRequest:
    """The request for one part of each tile; other inputs than pictures go with each."""
    top, left = corner
    bottom, right = (min(start + plan.most_edge, plan.tile_size) + 2 * plan.halo for start in corner)
    inputs = {
        name: np.ascontiguousarray(tensor[:, top:bottom, left:right]) if tensor.ndim == 4 else tensor
        for name, tensor in request.inputs.items()
    }
    return replace(request, inputs=inputs)


def _joined(parts: Sequence[Sequence[Tensor]]) -> Tensor:
    return np.concatenate([np.concatenate(row, axis=-1) for row in parts], axis=-2)
