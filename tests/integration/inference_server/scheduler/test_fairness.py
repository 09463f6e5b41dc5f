"""How clients and priorities share a model, told from the order of the engine's runs."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_server.engine.port import Tensors
from inference_server.scheduler.dispatch.admission import QueueLimits
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse
from inference_server.scheduler.registry import ServingModels
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader, selector

TENSORS = 'input { name: "x" data_type: TYPE_FP32 dims: [4] } '
TILE, PAGE, OTHER = 1.0, 2.0, 3.0


@pytest.fixture
def engine() -> ReferenceLoader:
    return ReferenceLoader()


def batches_with(runs: list[Tensors], value: float) -> list[int]:
    """The places of the batches that hold a value, in the order of the runs."""
    return [place for place, inputs in enumerate(runs) if value in inputs["x"][:, 0]]


async def flooded(models: ServingModels, engine: ReferenceLoader, count: int, **caller: Any) -> list[asyncio.Task[InferenceResponse]]:
    """A model whose queue one client has filled, and whose first batches have run."""
    engine.runs.clear()
    engine.seconds = 0.002
    tasks = [ask(models, value=TILE, client="slides", **caller) for _ in range(count)]
    while len(engine.runs) < 3:
        await asyncio.sleep(0.001)
    return tasks


async def test_a_flood_of_one_client_delays_another_by_no_more_than_the_batch_that_runs(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 8 {TENSORS} dynamic_batching {{ }}")
    async with serving(tmp_path, selector(engine)) as models:
        tiles = await flooded(models, engine, 800)
        for page in range(5):
            request = InferenceRequest(model="double", inputs={"x": np.full((1, 4), PAGE + page, np.float32)}, caller=Caller(client="ocr"))
            begun = len(engine.runs)
            await models.infer(request)
            (place,) = batches_with(engine.runs, PAGE + page)
            assert place <= begun + 1, "the batch that runs, and at most one that was handed over meanwhile"
        assert any(not tile.done() for tile in tiles)
        await asyncio.gather(*tiles)


async def test_a_slide_of_50_000_tiles_delays_a_page_by_no_more_than_one_batch(tmp_path: Path, engine: ReferenceLoader) -> None:
    """Whenever the page comes. In the order of their arrival it would wait for some 6,000 batches."""
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 8 {TENSORS} dynamic_batching {{ }}")
    options = SchedulingOptions(limits=QueueLimits(max_requests=60_000, max_bytes=2**30))
    async with serving(tmp_path, selector(engine), options=options) as models:
        tiles = await flooded(models, engine, 50_000)
        waited = []
        for page in range(5):
            await asyncio.sleep(0.02)
            assert sum(not tile.done() for tile in tiles) > 40_000
            request = InferenceRequest(model="double", inputs={"x": np.full((1, 4), PAGE + page, np.float32)}, caller=Caller(client="ocr"))
            begun = len(engine.runs)
            await models.infer(request)
            (place,) = batches_with(engine.runs, PAGE + page)
            # Behind the batch that runs, and at most one that was handed over meanwhile.
            waited.append(place - begun)
        assert max(waited) <= 1, waited
        for tile in tiles:
            tile.cancel()
        await asyncio.gather(*tiles, return_exceptions=True)


async def test_a_request_of_another_shape_goes_next_too(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "widths", onnx_models.widths(), config="max_batch_size: 8 dynamic_batching { }")
    async with serving(tmp_path, selector(engine)) as models:
        engine.runs.clear()
        engine.seconds = 0.002

        def request(width: int, client: str) -> InferenceRequest:
            return InferenceRequest(model="widths", inputs={"x": np.ones((1, width), np.float32)}, caller=Caller(client=client))

        tiles = [asyncio.ensure_future(models.infer(request(64, "slides"))) for _ in range(400)]
        while len(engine.runs) < 3:
            await asyncio.sleep(0.001)
        begun = len(engine.runs)
        await models.infer(request(3, "ocr"))
        (place,) = [place for place, inputs in enumerate(engine.runs) if inputs["x"].shape[1] == 3]
        assert place <= begun + 1
        await asyncio.gather(*tiles)


async def test_clients_get_their_weights_shares(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 4 {TENSORS} dynamic_batching {{ }}")
    options = SchedulingOptions(client_weights={"ocr": 3.0, "slides": 1.0})
    async with serving(tmp_path, selector(engine), options=options) as models:
        tiles = await flooded(models, engine, 300)
        begun = len(engine.runs) + 1
        pages = [ask(models, value=PAGE, client="ocr") for _ in range(90)]
        await asyncio.gather(*pages)
        shared = Counter(value for inputs in engine.runs[begun:][:20] for value in inputs["x"][:, 0].tolist())
        await asyncio.gather(*tiles)
    assert 80 == shared.total()
    assert 58 <= shared[PAGE] <= 62


async def test_priorities_that_the_owner_does_not_name_share_by_weight_so_that_none_starves(
    tmp_path: Path, engine: ReferenceLoader
) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 1 {TENSORS}")
    async with serving(tmp_path, selector(engine)) as models:
        urgent = await flooded(models, engine, 60, priority=3)
        begun = len(engine.runs)
        await ask(models, value=PAGE, client="ocr", priority=5)
        await ask(models, value=OTHER, client="ocr", priority=5)
        (first,), (second,) = batches_with(engine.runs, PAGE), batches_with(engine.runs, OTHER)
        await asyncio.gather(*urgent)
    assert first <= begun + 5
    assert second - first <= 5


async def test_priorities_that_the_owner_names_are_strict(tmp_path: Path, engine: ReferenceLoader) -> None:
    levels = "dynamic_batching { priority_levels: 2 default_priority_level: 2 }"
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 1 {TENSORS} {levels}")
    async with serving(tmp_path, selector(engine)) as models:
        urgent = await flooded(models, engine, 40, priority=1)
        await ask(models, value=PAGE, client="ocr", priority=2)
        await asyncio.gather(*urgent)
    assert [40] == batches_with(engine.runs, PAGE)
