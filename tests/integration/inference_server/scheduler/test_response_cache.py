"""Answers that are kept for equal requests, where the model's owner asks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import InferenceRequest, InferenceResponse
from inference_server.scheduler.response_cache import ResponseCache
from inference_server.scheduler.status import ModelState
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader, selector

CACHES = 'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [4] } response_cache { enable: true }'


@pytest.fixture
def engine() -> ReferenceLoader:
    return ReferenceLoader()


async def test_equal_requests_are_run_once_and_counted_as_hits(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=CACHES)
    async with serving(tmp_path, selector(engine)) as models:
        engine.runs.clear()
        answers = [await ask(models, value=value, client=client) for value, client in ((1, "a"), (1, "b"), (2, "a"), (1, "a"))]
        (statistics,) = models.statistics("double")
    assert [2.0, 2.0, 4.0, 2.0] == [answer.outputs["doubled"][0, 0] for answer in answers]
    assert [1.0, 2.0] == [inputs["x"][0, 0] for inputs in engine.runs]
    assert (2, 2, 4, 2) == (statistics.cache_hit.count, statistics.cache_miss.count, statistics.success.count, statistics.inference_count)


async def test_other_outputs_and_other_shapes_are_other_requests(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=CACHES)
    async with serving(tmp_path, selector(engine)) as models:
        engine.runs.clear()
        x = np.ones((1, 4), np.float32)
        for outputs in ((), ("doubled",), ("doubled",)):
            await models.infer(InferenceRequest(model="double", inputs={"x": x}, outputs=outputs))
        await models.infer(InferenceRequest(model="double", inputs={"x": np.ones((2, 4), np.float32)}))
    assert 3 == len(engine.runs)


async def test_a_reload_forgets_what_was_kept(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=CACHES)
    async with serving(tmp_path, selector(engine)) as models:
        await ask(models)
        await models.load("double")
        engine.runs.clear()
        await ask(models)
    assert 1 == len(engine.runs)


async def test_without_leave_of_the_owner_nothing_is_kept(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double())
    async with serving(tmp_path, selector(engine)) as models:
        engine.runs.clear()
        await ask(models)
        await ask(models)
    assert 2 == len(engine.runs)


async def test_a_model_that_asks_for_it_is_refused_where_there_is_no_room(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=CACHES)
    async with serving(tmp_path, selector(engine), options=SchedulingOptions(response_cache_bytes=0)) as models:
        (status,) = models.index()
    assert ModelState.UNAVAILABLE == status.state
    assert "asks for response_cache; give it room: INFERENCE_RESPONSE_CACHE_BYTES is 0" in status.reason


def response(size: int) -> InferenceResponse:
    return InferenceResponse(
        model="m", version="1", outputs={"y": np.zeros(size, np.uint8)}, engine="e", queue_seconds=1.0, compute_seconds=1.0
    )


def test_what_was_not_asked_for_the_longest_goes_first_and_bytes_are_bounded() -> None:
    cache = ResponseCache(100)
    for key in (b"a", b"b"):
        cache.put(key, response(40))
    cache.get(b"a")
    cache.put(b"c", response(30))
    assert [True, False, True] == [cache.get(key) is not None for key in (b"a", b"b", b"c")]
    cache.put(b"too large", response(101))
    assert 70 == cache.bytes


async def test_strings_that_join_to_the_same_text_are_told_apart() -> None:
    cache = ResponseCache(100).of_model()
    pairs = (np.array(["ab", "c"], dtype=object), np.array(["a", "bc"], dtype=object))
    first, second = [await cache.key(InferenceRequest(model="m", inputs={"text": pair})) for pair in pairs]
    assert first != second
