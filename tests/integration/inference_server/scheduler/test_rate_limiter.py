"""Resources that instances hold while they run."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from inference_server.engine.port import Tensor, Tensors
from inference_server.scheduler.registry import ServingModels
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceEngine, ReferenceLoader, selector


@pytest.fixture
def engine() -> ReferenceLoader:
    return ReferenceLoader()


@pytest.fixture
def at_a_time(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs there were at a time, at each begin of one."""
    running: list[int] = []
    seen: list[int] = []
    lock, run = threading.Lock(), ReferenceEngine.run

    def counted(self: ReferenceEngine, inputs: Tensors, output_names: tuple[str, ...] = ()) -> dict[str, Tensor]:
        with lock:
            running.append(1)
            seen.append(len(running))
        try:
            return run(self, inputs, output_names)
        finally:
            with lock:
                running.pop()

    monkeypatch.setattr(ReferenceEngine, "run", counted)
    return seen


def write(root: Path, name: str, limiter: str, count: int = 1) -> None:
    group = f"instance_group {{ count: {count} rate_limiter {{ {limiter} }} }}"
    config = f'max_batch_size: 1 input {{ name: "x" data_type: TYPE_FP32 dims: [4] }} {group}'
    onnx_models.write_model(root, name, onnx_models.double(), config=config)


async def several(models: ServingModels, *names: str, times: int = 4) -> None:
    await asyncio.gather(*(ask(models, name) for name in names for _ in range(times)))


async def test_models_that_need_the_same_resource_run_one_at_a_time(tmp_path: Path, engine: ReferenceLoader, at_a_time: list[int]) -> None:
    for name in ("one", "two"):
        write(tmp_path, name, 'resources { name: "lane" count: 1 }', count=2)
    async with serving(tmp_path, selector(engine)) as models:
        at_a_time.clear()
        engine.seconds = 0.01
        await several(models, "one", "two")
    assert [1] * 8 == at_a_time


async def test_without_a_resource_they_run_together(tmp_path: Path, engine: ReferenceLoader, at_a_time: list[int]) -> None:
    for name in ("one", "two"):
        write(tmp_path, name, "priority: 1", count=2)
    async with serving(tmp_path, selector(engine)) as models:
        at_a_time.clear()
        with engine.held():
            running = asyncio.create_task(several(models, "one", "two"))
            await engine.begun(4)
        await running
    assert 4 == max(at_a_time)


async def test_there_is_as_much_of_it_as_the_one_takes_that_takes_the_most(
    tmp_path: Path, engine: ReferenceLoader, at_a_time: list[int]
) -> None:
    write(tmp_path, "large", 'resources { name: "lane" global: true count: 2 }')
    write(tmp_path, "small", 'resources { name: "lane" global: true count: 1 }', count=3)
    async with serving(tmp_path, selector(engine)) as models:
        at_a_time.clear()
        engine.seconds = 0.03
        with engine.held():
            running = asyncio.create_task(several(models, "small", times=6))
            await engine.begun(2)
            # A third has the time to begin.
            await asyncio.sleep(0.05)
        await running
        assert 2 == max(at_a_time)
        at_a_time.clear()
        await several(models, "large", "small", times=4)
    assert 2 >= max(at_a_time)


async def test_those_who_wait_take_turns_by_priority(tmp_path: Path, engine: ReferenceLoader) -> None:
    write(tmp_path, "often", 'priority: 1 resources { name: "lane" count: 1 }')
    write(tmp_path, "seldom", 'priority: 3 resources { name: "lane" count: 1 }')
    async with serving(tmp_path, selector(engine)) as models:
        engine.runs.clear()
        engine.seconds = 0.005
        often = [ask(models, "often", value=1.0) for _ in range(12)]
        seldom = [ask(models, "seldom", value=2.0) for _ in range(12)]
        await asyncio.gather(*often, *seldom)
        order = [inputs["x"][0, 0] for inputs in engine.runs]
    assert 3 == order[:12].count(2.0)
    assert 24 == len(order)
