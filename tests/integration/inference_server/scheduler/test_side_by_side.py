"""A model of one instance with two cores: both for one batch, or one each for two while much waits."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from inference_server.engine.onnxruntime import OnnxRuntimeEngine
from inference_server.engine.runtimes import discover
from inference_server.engine.selection import EngineSelector
from inference_server.errors import DeadlineExceeded, ModelFailed
from inference_server.scheduler.port import InferenceRequest
from tests.support import onnx_models
from tests.support.reference_engine import ReferenceLoader, selector
from tests.support.serving import ask, serving

CONFIG = 'max_batch_size: 64 input { name: "x" data_type: TYPE_FP32 dims: [4] }'
TWO_THREADS = 'parameters { key: "intra_op_thread_count" value { string_value: "2" } }'
ONNX_RUNTIME = 'parameters { key: "lamina.engine" value { string_value: "onnxruntime" } }'


@pytest.fixture
def engine() -> ReferenceLoader:
    """Of long runs: short ones are not worth a core of their own."""
    return ReferenceLoader(seconds=0.02, two_cores=True)


def write(root: Path, *more: str) -> Path:
    onnx_models.write_model(root, "double", onnx_models.double(), config=" ".join((CONFIG, *more)))
    return root


def rows(engine: ReferenceLoader) -> list[int]:
    return [len(inputs["x"]) for inputs in engine.runs]


async def nothing_more_begins(engine: ReferenceLoader) -> None:
    before = len(engine.runs)
    await asyncio.sleep(0.05)
    assert before == len(engine.runs)


async def test_much_that_waits_is_run_in_two_batches_at_a_time_a_quarter_each(tmp_path: Path, engine: ReferenceLoader) -> None:
    async with serving(write(tmp_path), selector(engine)) as models:
        await ask(models)
        with engine.held():
            tasks = [ask(models, value=value) for value in range(64)]
            await engine.begun(2)
            await nothing_more_begins(engine)
            assert ([16, 16], [False, True]) == (rows(engine), engine.beside)
        answers = await asyncio.gather(*tasks)
        engine.beside.clear()
        await ask(models)
        assert [False] == engine.beside
    assert [2.0 * value for value in range(64)] == [answer.outputs["doubled"][0, 0] for answer in answers]


async def test_little_that_waits_is_one_batch(tmp_path: Path, engine: ReferenceLoader) -> None:
    async with serving(write(tmp_path), selector(engine)) as models:
        await ask(models)
        with engine.held():
            tasks = [ask(models) for _ in range(31)]
            await engine.begun()
            await nothing_more_begins(engine)
        await asyncio.gather(*tasks)
    assert ([31], [False]) == (rows(engine), engine.beside)


async def test_models_of_short_runs_have_one_at_a_time(tmp_path: Path) -> None:
    engine = ReferenceLoader(two_cores=True)
    async with serving(write(tmp_path), selector(engine)) as models:
        await ask(models)
        with engine.held():
            tasks = [ask(models) for _ in range(64)]
            await engine.begun()
            await nothing_more_begins(engine)
        await asyncio.gather(*tasks)
    assert ([64], [False]) == (rows(engine), engine.beside)


async def test_none_begins_beside_a_batch_that_took_most_of_what_there_is(tmp_path: Path, engine: ReferenceLoader) -> None:
    async with serving(write(tmp_path), selector(engine)) as models:
        await ask(models)
        with engine.held():
            tasks = [ask(models) for _ in range(31)]
            await engine.begun()
            tasks += [ask(models) for _ in range(8)]
            await nothing_more_begins(engine)
        await asyncio.gather(*tasks)


async def test_a_large_request_has_both_cores_and_never_the_second_one_alone(tmp_path: Path, engine: ReferenceLoader) -> None:
    async with serving(write(tmp_path), selector(engine)) as models:
        await ask(models)
        with engine.held():
            tasks = [ask(models, rows=32)]
            await engine.begun()
            tasks += [ask(models, rows=9, priority=1), *(ask(models) for _ in range(40))]
            await nothing_more_begins(engine)
        await asyncio.gather(*tasks)
    large = [beside for inputs, beside in zip(engine.runs, engine.beside, strict=True) if len(inputs["x"]) in (9, 32)]
    assert not any(large)


@pytest.mark.parametrize(
    "more",
    [
        "instance_group { count: 2 }",
        'instance_group { rate_limiter { resources { name: "R" count: 1 } } }',
        "dynamic_batching { max_queue_delay_microseconds: 1000 }",
        "dynamic_batching { preferred_batch_size: 16 }",
        'parameters { key: "lamina.run_rows" value { string_value: "1,8" } }',
    ],
)
async def test_what_an_owner_says_of_instances_and_batches_is_kept(tmp_path: Path, engine: ReferenceLoader, more: str) -> None:
    async with serving(write(tmp_path, more), selector(engine)) as models:
        await ask(models)
        await asyncio.gather(*(ask(models) for _ in range(128)))
    assert not any(engine.beside)


async def test_a_batch_that_fails_costs_only_the_request_at_fault(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "lookup", onnx_models.lookup(), config="max_batch_size: 64")
    async with serving(tmp_path, selector(engine)) as models:
        await models.infer(InferenceRequest(model="lookup", inputs={"index": np.array([1], np.int64)}))
        indices = [1, 99, *[3] * 126]
        requests = [InferenceRequest(model="lookup", inputs={"index": np.array([index], np.int64)}) for index in indices]
        results = await asyncio.gather(*map(models.infer, requests), return_exceptions=True)
    assert [1] == [number for number, result in enumerate(results) if isinstance(result, ModelFailed)]
    assert any(engine.beside)
    assert [10, *[30] * 126] == [result.outputs["value"][0] for result in results if not isinstance(result, BaseException)]


async def test_engines_are_gone_when_their_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference_server.scheduler.dispatcher._LONG_RUN_SECONDS", 0.0)
    made: list[weakref.ref[OnnxRuntimeEngine]] = []
    begin = OnnxRuntimeEngine.__init__

    def remembered(self: OnnxRuntimeEngine, *args: object, **options: object) -> None:
        made.append(weakref.ref(self))
        begin(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxRuntimeEngine, "__init__", remembered)
    async with serving(write(tmp_path, TWO_THREADS, ONNX_RUNTIME), EngineSelector(discover())) as models:
        await asyncio.gather(*(ask(models) for _ in range(256)))
        assert len([engine for engine in made if engine() is not None]) == 2
        gc.disable()
        try:
            await models.unload("double")
            async with asyncio.timeout(10):
                while any(engine() is not None for engine in made):
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


async def test_each_request_ends_once_with_its_own_answer(tmp_path: Path, engine: ReferenceLoader) -> None:
    """Random rows, clients, priorities, deadlines, cancellations and pauses."""
    registry = CollectorRegistry()
    random = np.random.default_rng(7)
    async with serving(write(tmp_path), selector(engine), metrics=registry) as models:
        tasks = {}
        for value in range(1500):
            seconds = float(random.random() * 0.2) if random.random() < 0.3 else None
            client, priority = str(random.integers(5)), int(random.integers(11))
            tasks[value] = ask(models, value=value, rows=int(random.integers(1, 11)), seconds=seconds, client=client, priority=priority)
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
    assert sum(not isinstance(end, BaseException) for end in ends.values()) > 600
    assert 0 == registry.get_sample_value("lamina_admitted_bytes") == registry.get_sample_value("lamina_admitted_requests")
    assert {False, True} == set(engine.beside)
