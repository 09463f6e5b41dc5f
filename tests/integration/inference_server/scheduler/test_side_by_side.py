"""A model of one instance with two cores: both for one batch, or one each for two while much waits."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from inference_server.engine.onnxruntime.engine import OnnxRuntimeEngine
from inference_server.engine.runtimes import discover
from inference_server.engine.selection.selector import EngineSelector
from inference_server.errors import DeadlineExceeded, ModelFailed
from inference_server.scheduler.port import InferenceRequest
from inference_server.scheduler.registry import ServingModels
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader, selector

CONFIG = 'max_batch_size: 64 input { name: "x" data_type: TYPE_FP32 dims: [4] }'
TWO_THREADS = 'parameters { key: "intra_op_thread_count" value { string_value: "2" } }'
ROW = InferenceRequest(model="double", inputs={"x": np.ones((1, 4), np.float32)})
ONNX_RUNTIME = 'parameters { key: "lamina.engine" value { string_value: "onnxruntime" } }'


@pytest.fixture
def engine() -> ReferenceLoader:
    """Of long runs, since short ones are not worth a core of their own, and faster with two at a time."""
    return ReferenceLoader(seconds=0.04, two_cores=True, slowdown=0.3)


def write(root: Path, *more: str) -> Path:
    onnx_models.write_model(root, "double", onnx_models.double(), config=" ".join((CONFIG, *more)))
    return root


def rows(engine: ReferenceLoader) -> list[int]:
    return [len(inputs["x"]) for inputs in engine.runs]


async def many_ask(models: ServingModels, engine: ReferenceLoader, request: InferenceRequest = ROW, *, runs: int = 26) -> None:
    """64 callers with a row at a time, for so many runs: as many as it takes to choose how to run."""
    last = len(engine.runs) + runs

    async def caller() -> None:
        while len(engine.runs) < last:
            await models.infer(request)

    await asyncio.gather(*(caller() for _ in range(64)))


async def nothing_more_begins(engine: ReferenceLoader) -> None:
    before = len(engine.runs)
    await asyncio.sleep(0.05)
    assert before == len(engine.runs)


async def test_much_that_waits_is_run_in_two_batches_at_a_time_a_quarter_each(tmp_path: Path, engine: ReferenceLoader) -> None:
    async with serving(write(tmp_path), selector(engine)) as models:
        await many_ask(models, engine)
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
        await many_ask(models, engine)
        with engine.held():
            tasks = [ask(models) for _ in range(31)]
            await engine.begun()
            await nothing_more_begins(engine)
        await asyncio.gather(*tasks)
    assert ([31], [False]) == (rows(engine), engine.beside)


async def test_models_of_short_runs_have_one_at_a_time(tmp_path: Path) -> None:
    engine = ReferenceLoader(two_cores=True)
    async with serving(write(tmp_path), selector(engine)) as models:
        await many_ask(models, engine)
        assert not any(engine.beside)
        with engine.held():
            tasks = [ask(models) for _ in range(64)]
            await engine.begun()
            await nothing_more_begins(engine)
        await asyncio.gather(*tasks)
    assert ([64], [False]) == (rows(engine), engine.beside)


async def test_none_begins_beside_a_batch_that_took_most_of_what_there_is(tmp_path: Path, engine: ReferenceLoader) -> None:
    async with serving(write(tmp_path), selector(engine)) as models:
        await many_ask(models, engine)
        with engine.held():
            tasks = [ask(models) for _ in range(31)]
            await engine.begun()
            tasks += [ask(models) for _ in range(8)]
            await nothing_more_begins(engine)
        await asyncio.gather(*tasks)


async def test_a_large_request_has_both_cores_and_never_the_second_one_alone(tmp_path: Path, engine: ReferenceLoader) -> None:
    async with serving(write(tmp_path), selector(engine)) as models:
        await many_ask(models, engine)
        with engine.held():
            tasks = [ask(models, rows=32)]
            await engine.begun()
            tasks += [ask(models, rows=9, priority=1), *(ask(models) for _ in range(40))]
            await nothing_more_begins(engine)
        await asyncio.gather(*tasks)
    large = [beside for inputs, beside in zip(engine.runs, engine.beside, strict=True) if len(inputs["x"]) in (9, 32)]
    assert not any(large)


async def test_nor_is_a_large_request_that_stands_in_the_middle_of_the_line(tmp_path: Path, engine: ReferenceLoader) -> None:
    async with serving(write(tmp_path), selector(engine)) as models:
        await many_ask(models, engine)
        with engine.held():
            tasks = [ask(models, rows=12 if 20 <= place < 22 else 1, value=float(place)) for place in range(52)]
            await engine.begun()
            await nothing_more_begins(engine)
        await asyncio.gather(*tasks)
    large = [beside for inputs, beside in zip(engine.runs, engine.beside, strict=True) if 20.0 in inputs["x"] or 21.0 in inputs["x"]]
    assert large
    assert not any(large)


async def test_two_at_a_time_are_no_more_than_one_batch_together(tmp_path: Path, engine: ReferenceLoader) -> None:
    async with serving(write(tmp_path), selector(engine)) as models:
        await many_ask(models, engine)
        with engine.held():
            tasks = [ask(models) for _ in range(400)]
            await engine.begun(2)
            assert [32, 32] == rows(engine)
        await asyncio.gather(*tasks)


@pytest.mark.parametrize(("slowdown", "pairs"), [(2.0, False), (0.3, True)])
async def test_what_is_faster_is_found_out(tmp_path: Path, slowdown: float, pairs: bool) -> None:
    engine = ReferenceLoader(seconds=0.04, two_cores=True, slowdown=slowdown)
    async with serving(write(tmp_path), selector(engine)) as models:
        await many_ask(models, engine)
        assert {False, True} == set(engine.beside)
        await many_ask(models, engine, runs=20)
    assert pairs == any(engine.beside[-16:])


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
        await many_ask(models, engine, runs=30)
    assert not any(engine.beside)


async def test_a_batch_that_fails_costs_only_the_request_at_fault(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "lookup", onnx_models.lookup(), config="max_batch_size: 64")
    async with serving(tmp_path, selector(engine)) as models:
        indices = [1, 99, *[3] * 126]
        requests = [InferenceRequest(model="lookup", inputs={"index": np.array([index], np.int64)}) for index in indices]
        await many_ask(models, engine, requests[0])
        engine.beside.clear()
        results = await asyncio.gather(*map(models.infer, requests), return_exceptions=True)
    assert [1] == [number for number, result in enumerate(results) if isinstance(result, ModelFailed)]
    assert any(engine.beside)
    assert [10, *[30] * 126] == [result.outputs["value"][0] for result in results if not isinstance(result, BaseException)]


async def test_engines_are_gone_when_their_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference_server.scheduler.dispatch.dispatcher._LONG_RUN_SECONDS", 0.0)
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
        await many_ask(models, engine)
        engine.beside.clear()
        tasks = {}
        for value in range(1500):
            seconds = float(random.random() * 0.2) if random.random() < 0.3 else None
            rows = int(random.integers(1, 9 if value < 1000 else 12))
            client, priority = str(random.integers(5)), int(random.integers(11))
            tasks[value] = ask(models, value=value, rows=rows, seconds=seconds, client=client, priority=priority)
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
