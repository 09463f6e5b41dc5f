"""Large tiles, for which a model is called in parts: what an engine holds while it runs grows with the largest call, and stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from inference_server.engine.port import Tensor
from inference_server.scheduler.port import Inference, InferenceRequest, InferenceResponse
from inference_server.tasks.slides.findings import AnalysisPlan


async def infer(inference: Inference, request: InferenceRequest, plan: AnalysisPlan) -> InferenceResponse:
    """A model's answer for tiles with their halo, asked for in parts where the plan says so. Raises as `Inference.infer` does.

    An output of a part covers its core, rows and columns last, and is put beside those of the parts around it.
    """
    core, most = plan.tile_size, plan.most_edge
    if not most or core <= most:
        return await inference.infer(request)
    starts = range(0, core, most)
    rows = [[await inference.infer(_part(request, plan, (y, x))) for x in starts] for y in starts]
    answers = [answer for row in rows for answer in row]
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
