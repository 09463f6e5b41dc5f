"""What is run of requests that have a deadline."""

from __future__ import annotations

import asyncio
from pathlib import Path

from inference_server.errors import DeadlineExceeded
from inference_server.scheduler.port import InferenceResponse
from tests.support import onnx_models
from tests.support.reference_engine import ReferenceLoader, selector
from tests.support.serving import ask, serving

ALONE = 'max_batch_size: 1 input { name: "x" data_type: TYPE_FP32 dims: [4] }'


async def test_of_six_requests_with_a_deadline_of_one_run_and_a_half_at_most_two_are_run(tmp_path: Path) -> None:
    """A model of 1 s and a deadline of 1.5 s: one can be answered; a second is begun while nothing is known of the model's pace."""
    engine = ReferenceLoader()
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        engine.runs.clear()
        engine.seconds = 1.0
        results = await asyncio.gather(*(ask(models, seconds=1.5) for _ in range(6)), return_exceptions=True)
        await asyncio.sleep(0.6)
        assert 1 == sum(isinstance(result, InferenceResponse) for result in results)
        assert 5 == sum(isinstance(result, DeadlineExceeded) for result in results)
    assert len(engine.runs) <= 2


async def test_a_run_that_cannot_end_in_time_is_not_begun_once_the_pace_is_known(tmp_path: Path) -> None:
    engine = ReferenceLoader()
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        engine.seconds = 0.2
        await asyncio.gather(*(ask(models) for _ in range(3)))
        engine.runs.clear()
        results = await asyncio.gather(*(ask(models, seconds=0.38) for _ in range(6)), return_exceptions=True)
    assert 1 == len(engine.runs)
    assert 1 == sum(isinstance(result, InferenceResponse) for result in results)
    assert any("was not begun: model double lately took 0.2" in str(result) for result in results)


async def test_a_model_that_has_become_fast_is_tried_again(tmp_path: Path) -> None:
    """Else a forecast of slow times would turn everyone away for ever, and never learn better."""
    engine = ReferenceLoader()
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        engine.seconds = 0.1
        await asyncio.gather(*(ask(models) for _ in range(3)))
        engine.seconds = 0.0
        tries = [await asyncio.gather(ask(models, seconds=0.08), asyncio.sleep(0.1), return_exceptions=True) for _ in range(15)]
    assert not isinstance(tries[0][0], InferenceResponse)
    assert any(isinstance(result, InferenceResponse) for result, _ in tries)
