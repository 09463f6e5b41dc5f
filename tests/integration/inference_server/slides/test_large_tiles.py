"""Large tiles: the model is called for parts of them, and answers as for the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference_server.scheduler.port import InferenceRequest, InferenceResponse
from inference_server.tasks.slides import large_tiles
from inference_server.tasks.slides.analyses import Analyses
from inference_server.tasks.slides.kinds.nucleus_filter import inputs_of
from tests.support.direct_inference import DirectInference
from tests.support.slides import paint, scattered


class Watched(DirectInference):
    """Remembers the largest tensor that the model was given."""

    largest = 0

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        self.largest = max(self.largest, *(tensor.nbytes for tensor in request.inputs.values()))
        return await super().infer(request)


@pytest.mark.parametrize("tile_size", [512, 528, 1008])
async def test_parts_of_a_tile_give_what_the_whole_does(models: Path, tile_size: int) -> None:
    plan = (await Analyses(inference=DirectInference(models), models=models).prepare("", tile_size)).plan
    edge = tile_size + 2 * plan.halo
    tissue = (20, 20, edge - 20, edge - 20)
    tiles = paint(edge, edge, tissue=tissue, nuclei=scattered(100, within=tissue, apart=15), noise=4)[None]
    request = InferenceRequest(model=plan.model, version="1", inputs=inputs_of(tiles, [0.125]), outputs=plan.outputs)
    whole, parts = Watched(models), Watched(models)
    expected, found = await whole.infer(request), await large_tiles.infer(parts, request, plan)
    assert expected.outputs.keys() == found.outputs.keys()
    assert expected.outputs["candidates"].any()
    for name, values in expected.outputs.items():
        np.testing.assert_array_equal(values, found.outputs[name], err_msg=name)
    assert parts.largest <= 3 * (512 + 2 * plan.halo) ** 2
