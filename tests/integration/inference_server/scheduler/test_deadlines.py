"""What is run of requests that have a deadline."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from inference_server.errors import DeadlineExceeded
from inference_server.scheduler.port import InferenceResponse
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader, selector
from tests.support.moved_clock import MovedClock, moved_clock

ALONE = 'max_batch_size: 1 input { name: "x" data_type: TYPE_FP32 dims: [4] }'


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    return moved_clock(monkeypatch)


async def test_of_six_requests_with_a_deadline_of_one_run_and_a_half_at_most_two_are_run(tmp_path: Path, clock: MovedClock) -> None:
    """A model of 1,000 s and a deadline of 1,500 s: one can be answered; a second is begun while nothing is known of the model's pace."""
    engine = ReferenceLoader()
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        engine.runs.clear()
        engine.seconds = 1000.0
        results = await asyncio.gather(*(ask(models, seconds=1500.0) for _ in range(6)), return_exceptions=True)
        assert 1 == sum(isinstance(result, InferenceResponse) for result in results)
        assert 5 == sum(isinstance(result, DeadlineExceeded) for result in results)
    assert len(engine.runs) <= 2


async def test_a_run_that_cannot_end_in_time_is_not_begun_once_the_pace_is_known(tmp_path: Path, clock: MovedClock) -> None:
    engine = ReferenceLoader()
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        engine.seconds = 200.0
        await asyncio.gather(*(ask(models) for _ in range(3)))
        engine.runs.clear()
        results = await asyncio.gather(*(ask(models, seconds=380.0) for _ in range(6)), return_exceptions=True)
    assert 1 == len(engine.runs)
    assert 1 == sum(isinstance(result, InferenceResponse) for result in results)
    assert any("was not begun: model double lately took 200" in str(result) for result in results)


async def test_a_model_that_has_become_fast_is_tried_again(tmp_path: Path, clock: MovedClock) -> None:
    """Else a forecast of slow times would turn everyone away for ever, and never learn better."""
    engine = ReferenceLoader()
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        engine.seconds = 100.0
        await asyncio.gather(*(ask(models) for _ in range(3)))
        engine.seconds = 0.0
        tries = []
        for _ in range(15):
            tries += await asyncio.gather(ask(models, seconds=80.0), return_exceptions=True)
            clock.sleep(100.0)
    assert not isinstance(tries[0], InferenceResponse)
    assert any(isinstance(result, InferenceResponse) for result in tries)
