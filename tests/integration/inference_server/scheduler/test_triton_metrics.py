"""What Triton counts, under its names and with its meanings."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from inference_server.errors import DeadlineExceeded, InvalidTensor, ModelFailed
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader, selector
from tests.support.moved_clock import MovedClock, moved_clock

BATCHES = 'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [4] }'
ALONE = 'max_batch_size: 1 input { name: "x" data_type: TYPE_FP32 dims: [4] }'
TIMES = ("request", "queue", "compute_input", "compute_infer", "compute_output")


class Counts:
    """Reads the metrics of one model."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"nv_{name}", {"model": "double", "version": "1", **labels})

    def failures(self) -> dict[str, float | None]:
        return {why: self("inference_request_failure", reason=why) for why in ("REJECTED", "CANCELED", "BACKEND", "OTHER")}


@pytest.fixture
def engine() -> ReferenceLoader:
    return ReferenceLoader()


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    return moved_clock(monkeypatch)


async def test_requests_rows_and_batches_are_counted_apart(tmp_path: Path, engine: ReferenceLoader) -> None:
    """Triton's own example: two requests of 1 and 7 rows that share a batch are 2 requests, 8 inferences and 1 execution."""
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    counts = Counts()
    async with serving(tmp_path, selector(engine), metrics=counts.registry) as models:
        engine.seconds = 0.02
        await asyncio.gather(ask(models), ask(models, rows=7))
        assert (counts("inference_request_success"), counts("inference_count"), counts("inference_exec_count")) == (2, 8, 1)
        times = {name: counts(f"inference_{name}_duration_us") for name in TIMES}
    # Both requests spent the run's 20 ms in the engine, and count it each.
    assert 40_000 <= (times["compute_infer"] or 0)
    assert sum(value or 0 for name, value in times.items() if name != "request") <= (times["request"] or 0)


async def test_failures_are_counted_by_why(tmp_path: Path, engine: ReferenceLoader, clock: MovedClock) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    counts = Counts()
    async with serving(tmp_path, selector(engine), metrics=counts.registry) as models:
        assert counts.failures() == {"REJECTED": 0, "CANCELED": 0, "BACKEND": 0, "OTHER": 0}
        with pytest.raises(InvalidTensor):
            await ask(models, rows=9)
        engine.failure = ModelFailed("no")
        with pytest.raises(ModelFailed):
            await ask(models)
        engine.failure = None
        with engine.held():
            running = ask(models)
            await engine.begun()
            late, left = ask(models, seconds=300), ask(models)
            await asyncio.sleep(0)
            left.cancel()
            clock.sleep(300)
            with pytest.raises(DeadlineExceeded):
                await late
        await asyncio.gather(running, left, return_exceptions=True)
        assert counts.failures() == {"REJECTED": 1, "CANCELED": 1, "BACKEND": 1, "OTHER": 1}


async def test_a_deadline_that_passes_while_the_model_runs_is_no_rejection_by_the_scheduler(
    tmp_path: Path, engine: ReferenceLoader, clock: MovedClock
) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    counts = Counts()
    async with serving(tmp_path, selector(engine), metrics=counts.registry) as models:
        with engine.held():
            late = ask(models, seconds=300)
            await engine.begun()
            clock.sleep(300)
            with pytest.raises(DeadlineExceeded):
                await late
        assert counts.failures() == {"REJECTED": 0, "CANCELED": 0, "BACKEND": 0, "OTHER": 1}


async def test_requests_that_have_not_begun_are_pending(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    counts = Counts()
    async with serving(tmp_path, selector(engine), metrics=counts.registry) as models:
        with engine.held():
            tasks = [ask(models) for _ in range(4)]
            await engine.begun()
            assert counts("inference_pending_request_count") == 3
        await asyncio.gather(*tasks)
        assert counts("inference_pending_request_count") == 0


async def test_the_cache_is_counted_for_models_that_have_one(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"{BATCHES} response_cache {{ enable: true }}")
    onnx_models.write_model(tmp_path, "widths", onnx_models.widths())
    counts = Counts()
    async with serving(tmp_path, selector(engine), metrics=counts.registry) as models:
        for value in (1, 1, 2, 1):
            await ask(models, value=value)
        assert (counts("cache_num_hits_per_model"), counts("cache_num_misses_per_model")) == (2, 2)
        assert min(counts("cache_hit_duration_per_model") or 0, counts("cache_miss_duration_per_model") or 0) > 0
        # Answers that were kept are requests, and no inferences.
        assert (counts("inference_request_success"), counts("inference_exec_count")) == (4, 2)
        assert counts.registry.get_sample_value("nv_cache_num_hits_per_model", {"model": "widths", "version": "1"}) is None


async def test_a_model_that_is_gone_is_counted_no_more(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    counts = Counts()
    async with serving(tmp_path, selector(engine), metrics=counts.registry) as models:
        await ask(models)
        await models.unload("double")
        assert counts("inference_request_success") is None
