"""Large tiles: the model is called for parts of them, and answers as for the whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import tifffile

from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse
from inference_server.storage.storage import Storage
from inference_server.tasks.slides import large_tiles
from inference_server.tasks.slides.analyses import Analyses
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.kinds.nucleus_filter import inputs_of
from inference_server.tasks.slides.values import AnalysisRequest
from tests.support.models.direct_inference import DirectInference
from tests.support.slides.painted import paint, scattered, write_lzw_tiff
from tests.support.slides.tile_models import write_many_classes


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


class Held(DirectInference):
    """Remembers how many bytes all answers had together whose calls were under way at the same time."""

    held = most = 0

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        answer = await super().infer(request)
        size = sum(tensor.nbytes for tensor in answer.outputs.values())
        self.held += size
        self.most = max(self.most, self.held)
        # Whoever else may call does so meanwhile.
        await asyncio.sleep(0.02)
        self.held -= size
        return answer


async def test_a_segmenter_of_many_classes_holds_no_more_than_one_of_few(tmp_path: Path) -> None:
    picture = paint(1800, 1100, tissue=(20, 20, 1780, 1080), noise=20)
    slide = write_lzw_tiff(tmp_path / "slide.tif", picture)
    write_many_classes(tmp_path / "models", 64, tile_size=512, overlap=32)
    inference = Held(tmp_path / "models")
    storage = Storage(read_roots=(str(tmp_path),), write_roots=(str(tmp_path / "out"),))
    analyzer = SlideAnalyzer(inference=inference, storage=storage, models=tmp_path / "models")
    request = AnalysisRequest(
        slide_uri=str(slide), output_uri=str(tmp_path / "out"), analysis="many", mpp=1.0, artifacts=("mask.ome.tiff",)
    )
    async for _ in analyzer.analyze(request, Caller()):
        pass

    # Of four float32 for each of the pixels that may be under way.
    assert inference.most <= 10 * 1024 * 1024 * 16
    expected = np.abs(picture[..., 1:2] / 255 - np.linspace(0, 1, 64)).argmin(axis=2) + 1
    mask = tifffile.imread(tmp_path / "out" / "mask.ome.tiff")
    assert (mask[100:1000, 100:1700] == expected[100:1000, 100:1700]).mean() > 0.999
