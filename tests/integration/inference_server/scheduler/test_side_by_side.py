"""Models of `lamina.side_by_side_rows`: one instance on all cores for few callers, one on each core for many."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from inference_server.engine.runtimes import discover
from inference_server.engine.selection import EngineSelector
from inference_server.errors import DeadlineExceeded, ModelFailed, Unavailable
from inference_server.scheduler.port import InferenceRequest
from tests.support import onnx_models
from tests.support.reference_engine import ReferenceLoader, selector
from tests.support.serving import ask, serving

# Of the instance on all cores, and of the two on one each.
WIDE, NARROW = 2, 1
TOLD = {"lamina.side_by_side_rows": "2", "intra_op_thread_count": "2"}
PARAMETERS = "".join(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }} ' for key, value in TOLD.items())
CONFIG = f'max_batch_size: 8 input {{ name: "x" data_type: TYPE_FP32 dims: [4] }} {PARAMETERS}'


@pytest.fixture
def engine() -> ReferenceLoader:
    return ReferenceLoader()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=CONFIG)
    return tmp_path


def ran_on(engine: ReferenceLoader) -> list[int]:
    return [own for own, *_ in engine.threads]


def rows(engine: ReferenceLoader) -> list[int]:
    return [len(inputs["x"]) for inputs in engine.runs]


async def test_callers_that_come_one_by_one_get_all_cores(root: Path, engine: ReferenceLoader) -> None:
    async with serving(root, selector(engine)) as models:
        engine.threads.clear()
        for _ in range(3):
            await ask(models)
    assert [WIDE] * 3 == ran_on(engine)


async def test_each_instance_is_warm_before_the_model_serves(root: Path, engine: ReferenceLoader) -> None:
    async with serving(root, selector(engine)):
        assert [NARROW, NARROW] == [own for own in ran_on(engine) if own == NARROW]


async def test_many_that_wait_are_shared_out_and_then_all_cores_are_one_again(root: Path, engine: ReferenceLoader) -> None:
    async with serving(root, selector(engine)) as models:
        with engine.held():
            tasks = [ask(models, value=value) for value in range(16)]
            await engine.begun(2)
            # A quarter each: another batch for each of the two is to follow.
            assert [4, 4] == rows(engine)
            assert [NARROW, NARROW] == ran_on(engine)
        answers = await asyncio.gather(*tasks)
        assert {NARROW} == set(ran_on(engine))
        engine.threads.clear()
        await ask(models)
        assert [WIDE] == ran_on(engine)
    assert [2.0 * value for value in range(16)] == [answer.outputs["doubled"][0, 0] for answer in answers]


async def test_fewer_than_a_batch_for_each_and_one_to_follow_are_one_batch(root: Path, engine: ReferenceLoader) -> None:
    async with serving(root, selector(engine)) as models:
        with engine.held():
            tasks = [ask(models) for _ in range(7)]
            await engine.begun()
        await asyncio.gather(*tasks)
    assert ([7], [WIDE]) == (rows(engine), ran_on(engine))


async def test_one_large_request_gets_all_cores(root: Path, engine: ReferenceLoader) -> None:
    async with serving(root, selector(engine)) as models:
        with engine.held():
            task = ask(models, rows=8)
            await engine.begun()
        await task
    assert ([8], [WIDE]) == (rows(engine), ran_on(engine))


async def test_urgent_requests_go_first(root: Path, engine: ReferenceLoader) -> None:
    async with serving(root, selector(engine)) as models:
        with engine.held():
            tasks = [ask(models, value=value, priority=1 if value >= 12 else 10) for value in range(16)]
            await engine.begun(2)
        await asyncio.gather(*tasks)
    assert {12.0, 13.0, 14.0, 15.0} <= {value for inputs in engine.runs[:2] for value in inputs["x"][:, 0]}


async def test_a_request_of_more_rows_than_a_share_goes_whole(root: Path, engine: ReferenceLoader) -> None:
    async with serving(root, selector(engine)) as models:
        with engine.held():
            tasks = [*(ask(models, priority=1) for _ in range(8)), ask(models, rows=7)]
            await engine.begun(2)
        await asyncio.gather(*tasks)
    assert 7 in rows(engine)
    assert {NARROW} == set(ran_on(engine))


async def test_requests_that_are_batches_by_themselves_get_all_cores_one_after_another(root: Path, engine: ReferenceLoader) -> None:
    async with serving(root, selector(engine)) as models:
        with engine.held():
            tasks = [ask(models, rows=5) for _ in range(4)]
            await engine.begun()
        await asyncio.gather(*tasks)
    assert ([5] * 4, [WIDE] * 4) == (rows(engine), ran_on(engine))


async def test_a_batch_that_fails_costs_only_the_request_at_fault(tmp_path: Path) -> None:
    config = f'max_batch_size: 8 {PARAMETERS} parameters {{ key: "lamina.engine" value {{ string_value: "onnxruntime" }} }}'
    onnx_models.write_model(tmp_path, "lookup", onnx_models.lookup(), config=config)
    async with serving(tmp_path, EngineSelector(discover())) as models:
        indices = [1, 99, *[3] * 14]
        requests = [InferenceRequest(model="lookup", inputs={"index": np.array([index], np.int64)}) for index in indices]
        results = await asyncio.gather(*map(models.infer, requests), return_exceptions=True)
    assert [1] == [number for number, result in enumerate(results) if isinstance(result, ModelFailed)]
    assert [10, *[30] * 14] == [result.outputs["value"][0] for result in results if not isinstance(result, BaseException)]


async def test_closing_waits_for_all_that_run_and_fails_what_waits(root: Path, engine: ReferenceLoader) -> None:
    async with serving(root, selector(engine)) as models:
        with engine.held():
            tasks = [ask(models) for _ in range(16)]
            await engine.begun(2)
            closing = asyncio.create_task(models.close(grace_seconds=0.05))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            assert not closing.done()
        await closing
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert (8, 8) == (
        sum(isinstance(result, Unavailable) for result in results),
        sum(not isinstance(result, Exception) for result in results),
    )


async def test_a_reload_without_it_lets_what_runs_end_and_is_one_instance(root: Path, engine: ReferenceLoader) -> None:
    async with serving(root, selector(engine)) as models:
        with engine.held():
            tasks = [ask(models, value=value) for value in range(16)]
            await engine.begun(2)
            loading = asyncio.create_task(models.load("double", config='{"max_batch_size": 8}'))
        answers = await asyncio.gather(*tasks)
        await loading
        engine.runs.clear()
        answers += await asyncio.gather(*(ask(models, value=value) for value in range(16)))
        assert [8, 8] == rows(engine)
    assert [2.0 * value for value in range(16)] * 2 == [answer.outputs["doubled"][0, 0] for answer in answers]


async def test_cores_are_never_given_twice_and_each_request_ends_once_with_its_own_answer(root: Path, engine: ReferenceLoader) -> None:
    """Random rows, clients, priorities, deadlines, cancellations and pauses."""
    registry = CollectorRegistry()
    random = np.random.default_rng(7)
    async with serving(root, selector(engine), metrics=registry) as models:
        engine.threads.clear()
        engine.seconds = 0.001
        tasks = {}
        for value in range(1500):
            seconds = float(random.random() * 0.2) if random.random() < 0.3 else None
            client, priority = str(random.integers(5)), int(random.integers(11))
            tasks[value] = ask(models, value=value, rows=int(random.integers(1, 9)), seconds=seconds, client=client, priority=priority)
            if random.random() < 0.1:
                asyncio.get_running_loop().call_later(float(random.random() * 0.2), tasks[value].cancel)
            if value % 50 == 0 or value < 50:
                await asyncio.sleep(0.004)
        ends = dict(zip(tasks, await asyncio.gather(*tasks.values(), return_exceptions=True), strict=True))
    for value, end in ends.items():
        if isinstance(end, BaseException):
            assert isinstance(end, DeadlineExceeded | asyncio.CancelledError)
        else:
            assert {2.0 * value} == set(end.outputs["doubled"].flat)
    assert 600 < sum(not isinstance(end, BaseException) for end in ends.values())
    assert 0 == registry.get_sample_value("lamina_admitted_bytes") == registry.get_sample_value("lamina_admitted_requests")
    assert {(WIDE,), (NARROW,), (NARROW, NARROW)} == set(engine.threads)
