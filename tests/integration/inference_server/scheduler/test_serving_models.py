"""How requests are batched, ordered, expired, cancelled and bounded, with a model whose run takes a known time."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from inference_server.engine.onnxruntime.engine import OnnxRuntimeLoader
from inference_server.engine.port import Tensors
from inference_server.engine.runtimes import discover
from inference_server.engine.selection.selector import EngineSelector
from inference_server.errors import DeadlineExceeded, InvalidTensor, ModelFailed, NotFound, Overloaded, Unavailable
from inference_server.models.repository import ModelRepository
from inference_server.scheduler.dispatch.admission import QueueLimits
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import InferenceRequest
from inference_server.scheduler.registry import ServingModels
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader, selector
from tests.support.moved_clock import MovedClock, moved_clock

TENSORS = 'input { name: "x" data_type: TYPE_FP32 dims: [4] } '
BATCHES = f"max_batch_size: 8 {TENSORS} dynamic_batching {{ }}"
ALONE = f"max_batch_size: 1 {TENSORS}"


@pytest.fixture
def engine() -> ReferenceLoader:
    return ReferenceLoader()


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    return moved_clock(monkeypatch)


def slow_from_now(engine: ReferenceLoader, seconds: float) -> None:
    """Forget the runs of the load, and take so long from now on."""
    engine.runs.clear()
    engine.seconds = seconds


def rows(runs: list[Tensors]) -> list[int]:
    return [len(inputs["x"]) for inputs in runs]


def values(runs: list[Tensors]) -> list[list[float]]:
    return [inputs["x"][:, 0].tolist() for inputs in runs]


async def test_requests_that_come_together_share_a_batch_and_each_gets_its_own_rows(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    async with serving(tmp_path, selector(engine)) as models:
        slow_from_now(engine, 0.0)
        answers = await asyncio.gather(*(ask(models, value=value, rows=rows) for value, rows in ((1, 1), (2, 3), (3, 2))))
    assert rows(engine.runs) == [6]
    assert [answer.outputs["doubled"][:, 0].tolist() for answer in answers] == [[2.0], [4.0] * 3, [6.0] * 2]


async def test_an_idle_instance_starts_at_once_and_the_queue_gathers_while_it_is_busy(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    async with serving(tmp_path, selector(engine)) as models:
        with engine.held():
            first = ask(models)
            await engine.begun()
            rest = [ask(models) for _ in range(10)]
            await asyncio.sleep(0)
        await asyncio.gather(first, *rest)
    assert rows(engine.runs) == [1, 8, 2]


async def test_the_next_long_run_begins_before_callers_hear_of_the_last(tmp_path: Path, engine: ReferenceLoader) -> None:
    """Its thread waits neither for the event loop's work on the answers, nor for the interpreter, which it would get after a while only."""
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        slow_from_now(engine, 0.05)
        first, *others = [ask(models, value=value) for value in (1, 2, 3)]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(60)
        try:
            await first
            assert 2 <= len(engine.runs)
        finally:
            sys.setswitchinterval(interval)
        await asyncio.gather(*others)


async def test_only_equal_shapes_share_a_batch(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "widths", onnx_models.widths(), config="max_batch_size: 8 dynamic_batching { }")
    async with serving(tmp_path, selector(engine)) as models:
        slow_from_now(engine, 0.0)
        requests = [InferenceRequest(model="widths", inputs={"x": np.ones((1, width), np.float32)}) for width in (3, 5, 3, 5, 3)]
        answers = await asyncio.gather(*map(models.infer, requests))
    assert [inputs["x"].shape for inputs in engine.runs] == [(3, 3), (2, 5)]
    assert [answer.outputs["doubled"].shape[1] for answer in answers] == [3, 5, 3, 5, 3]


async def test_a_queue_delay_that_the_owner_sets_waits_for_a_preferred_size(tmp_path: Path, engine: ReferenceLoader) -> None:
    delay = "dynamic_batching { preferred_batch_size: [4] max_queue_delay_microseconds: 600000000 }"
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 8 {TENSORS} {delay}")
    async with serving(tmp_path, selector(engine)) as models:
        slow_from_now(engine, 0.0)
        early = [ask(models) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert engine.runs == []
        await asyncio.gather(ask(models), *early)
    assert rows(engine.runs) == [4]


async def test_a_queue_delay_ends(tmp_path: Path, engine: ReferenceLoader) -> None:
    delay = "dynamic_batching { max_queue_delay_microseconds: 60000 }"
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 8 {TENSORS} {delay}")
    async with serving(tmp_path, selector(engine)) as models:
        slow_from_now(engine, 0.0)
        answer = await ask(models)
    assert 0.055 <= answer.queue_seconds < 60


async def test_expired_requests_are_never_run(tmp_path: Path, engine: ReferenceLoader, clock: MovedClock) -> None:
    """Six requests with a deadline of one and a half runs: the two that can begin in time are run, whatever the queue held."""
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        slow_from_now(engine, 200)
        results = await asyncio.gather(*(ask(models, seconds=300) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(result, DeadlineExceeded) for result in results) == 5
    assert len(engine.runs) == 2


async def test_one_expired_caller_of_a_batch_leaves_the_others_unharmed(tmp_path: Path, engine: ReferenceLoader, clock: MovedClock) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    async with serving(tmp_path, selector(engine)) as models:
        with engine.held():
            tasks = [ask(models, value=1), ask(models, value=2, seconds=300), ask(models, value=3)]
            await engine.begun()
            clock.sleep(300)
            with pytest.raises(DeadlineExceeded):
                await tasks[1]
        answers = await asyncio.gather(tasks[0], tasks[2])
    assert values(engine.runs) == [[1.0, 2.0, 3.0]]
    assert [answer.outputs["doubled"][0, 0] for answer in answers] == [2.0, 6.0]


async def test_one_cancelled_caller_of_a_batch_leaves_the_others_unharmed(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    async with serving(tmp_path, selector(engine)) as models:
        with engine.held():
            tasks = [ask(models, value=value) for value in (1, 2, 3)]
            await engine.begun()
            tasks[0].cancel()
        answers = await asyncio.gather(*tasks[1:])
        again = await ask(models, value=4)
    assert tasks[0].cancelled()
    assert values(engine.runs) == [[1.0, 2.0, 3.0], [4.0]]
    assert [answer.outputs["doubled"][0, 0] for answer in (*answers, again)] == [4.0, 6.0, 8.0]


async def test_a_caller_that_is_cancelled_while_it_waits_is_never_run(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        with engine.held():
            first = ask(models, value=1)
            await engine.begun()
            second, third = ask(models, value=2), ask(models, value=3)
            await asyncio.sleep(0)
            second.cancel()
        await asyncio.gather(first, third)
    assert values(engine.runs) == [[1.0], [3.0]]


async def test_urgent_requests_go_first_and_zero_means_the_default(tmp_path: Path, engine: ReferenceLoader) -> None:
    levels = "dynamic_batching { priority_levels: 3 default_priority_level: 2 }"
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 1 {TENSORS} {levels}")
    async with serving(tmp_path, selector(engine)) as models:
        asked = [(3, 3), (2, 0), (2.5, 9), (1, 1)]
        assert [3, 2, 2, 1] == [models.facts("double").batching.level(priority) for _, priority in asked]
        with engine.held():
            first = ask(models, value=0)
            await engine.begun()
            rest = [ask(models, value=value, priority=priority) for value, priority in asked]
            await asyncio.sleep(0)
        await asyncio.gather(first, *rest)
    assert values(engine.runs) == [[0.0], [1.0], [2.0], [2.5], [3.0]]


async def test_clients_of_one_priority_take_turns(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        with engine.held():
            first = ask(models, value=0)
            await engine.begun()
            many = [ask(models, value=1, client="many") for _ in range(4)]
            few = [ask(models, value=2, client="few") for _ in range(2)]
            await asyncio.sleep(0)
        await asyncio.gather(first, *many, *few)
    assert values(engine.runs) == [[0.0], [1.0], [2.0], [1.0], [2.0], [1.0], [1.0]]


async def test_several_instances_run_at_a_time(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"{ALONE} instance_group {{ count: 3 }}")
    async with serving(tmp_path, selector(engine)) as models:
        assert 3 == models.facts("double").instances
        with engine.held():
            tasks = [ask(models) for _ in range(3)]
            await engine.begun(3)
        await asyncio.gather(*tasks)


async def test_too_many_requests_are_refused_with_a_time_to_come_back(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine), options=SchedulingOptions(limits=QueueLimits(max_requests=2))) as models:
        slow_from_now(engine, 0.05)
        tasks = [ask(models) for _ in range(3)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(result, Overloaded) for result in results] == [False, False, True]
        assert results[2].retry_after > 0  # type: ignore[union-attr]
        await ask(models)


async def test_too_many_bytes_are_refused_and_one_request_of_too_many_is_invalid(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    async with serving(tmp_path, selector(engine), options=SchedulingOptions(limits=QueueLimits(max_bytes=64))) as models:
        slow_from_now(engine, 0.05)
        results = await asyncio.gather(*(ask(models, rows=rows) for rows in (3, 2, 1, 5)), return_exceptions=True)
        assert [isinstance(result, Exception) for result in results] == [False, True, False, True]
        assert isinstance(results[1], Overloaded)
        assert isinstance(results[3], InvalidTensor)


async def test_the_queue_of_one_model_has_its_owners_bound(tmp_path: Path, engine: ReferenceLoader) -> None:
    policy = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 1 {TENSORS} {policy}")
    async with serving(tmp_path, selector(engine)) as models:
        with engine.held():
            first = ask(models)
            await engine.begun()
            rest = [ask(models), ask(models)]
            await asyncio.sleep(0)
        results = await asyncio.gather(*rest, first, return_exceptions=True)
        assert [isinstance(result, Overloaded) for result in results] == [False, True, False]


@pytest.mark.parametrize(("action", "expected"), [("REJECT", [[0.0], [2.0]]), ("DELAY", [[0.0], [2.0], [1.0]])])
async def test_a_queue_policy_rejects_or_puts_behind_what_waited_too_long(
    tmp_path: Path, engine: ReferenceLoader, clock: MovedClock, action: str, expected: list[list[float]]
) -> None:
    policy = f"priority_queue_policy {{ key: 1 value {{ timeout_action: {action} default_timeout_microseconds: 300000000 }} }}"
    batching = f"dynamic_batching {{ priority_levels: 2 default_priority_level: 2 {policy} }}"
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 1 {TENSORS} {batching}")
    async with serving(tmp_path, selector(engine)) as models:
        with engine.held():
            first = ask(models, value=0)
            await engine.begun()
            rest = [ask(models, value=1, priority=1), ask(models, value=2)]
            await asyncio.sleep(0)
            clock.sleep(300)
            # Timers come in the order of their times.
            await asyncio.sleep(0.001)
        results = await asyncio.gather(*rest, first, return_exceptions=True)
    assert (action == "REJECT") == isinstance(results[0], DeadlineExceeded)
    assert expected == values(engine.runs)


async def test_one_poisonous_request_fails_alone(tmp_path: Path) -> None:
    config = 'max_batch_size: 8 parameters { key: "lamina.engine" value { string_value: "onnxruntime" } }'
    onnx_models.write_model(tmp_path, "lookup", onnx_models.lookup(), config=config)
    async with serving(tmp_path, EngineSelector(discover())) as models:
        requests = [InferenceRequest(model="lookup", inputs={"index": np.array([index], np.int64)}) for index in (1, 99, 3)]
        results = await asyncio.gather(*map(models.infer, requests), return_exceptions=True)
    assert isinstance(results[1], ModelFailed)
    assert [result.outputs["value"][0] for result in (results[0], results[2])] == [10, 30]  # type: ignore[union-attr]


async def test_only_wanted_outputs_are_given(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    x = np.ones((1, 4), np.float32)
    async with serving(tmp_path, selector(engine)) as models:
        wishes = [("negative",), ("doubled",), ()]
        answers = await asyncio.gather(*(models.infer(InferenceRequest(model="double", inputs={"x": x}, outputs=wish)) for wish in wishes))
    assert [{"negative"}, {"doubled"}, {"doubled", "negative"}] == [set(answer.outputs) for answer in answers]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
async def test_the_event_loop_turns_many_times_while_a_model_computes(tmp_path: Path, name: str) -> None:
    """A loop that computed itself would turn once a run."""
    onnx_models.write_model(tmp_path, "products", onnx_models.products(600))
    async with serving(tmp_path, EngineSelector(discover()), options=SchedulingOptions(engine=f"{name}:float32")) as models:
        request = InferenceRequest(model="products", inputs={"x": np.ones((32, 768), np.float32)})
        turns = []
        for _ in range(4):
            computing = asyncio.create_task(models.infer(request))
            turns.append(0)
            while not computing.done():
                await asyncio.sleep(0.001)
                turns[-1] += 1
    assert max(turns) >= 10


async def test_closing_finishes_what_is_there_and_refuses_what_comes(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        with engine.held():
            tasks = [ask(models, value=value) for value in (1, 2)]
            await engine.begun()
            closing = asyncio.create_task(models.close(grace_seconds=60.0))
            await asyncio.sleep(0)
            assert not models.is_ready("double")
            with pytest.raises(Unavailable):
                await ask(models)
        assert [(await task).outputs["doubled"][0, 0] for task in tasks] == [2.0, 4.0]
        await closing


async def test_closing_fails_what_waits_beyond_the_grace_and_waits_for_what_runs(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=ALONE)
    async with serving(tmp_path, selector(engine)) as models:
        with engine.held():
            tasks = [ask(models) for _ in range(3)]
            await engine.begun()
            closing = asyncio.create_task(models.close(grace_seconds=0.05))
            results = await asyncio.gather(*tasks[1:], return_exceptions=True)
            assert not closing.done()
        await closing
    assert [True, True] == [isinstance(result, Unavailable) for result in results]
    assert 2.0 == (await tasks[0]).outputs["doubled"][0, 0]


async def test_what_happens_is_counted(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    registry = CollectorRegistry()
    labels = {"model": "double", "version": "1"}
    async with serving(tmp_path, selector(engine), metrics=registry) as models:
        await asyncio.gather(*(ask(models) for _ in range(3)))
        with pytest.raises(DeadlineExceeded):
            await ask(models, seconds=-1)
        with pytest.raises(InvalidTensor):
            await models.infer(InferenceRequest(model="double", inputs={}))
        serves = {"engine": "numpy", "precision": "float32", "device": "cpu"}
        assert registry.get_sample_value("lamina_model_engine_info", labels | serves) == 1
        assert registry.get_sample_value("lamina_model_ready", labels) == 1
    for outcome, count in (("success", 3), ("expired", 1), ("invalid", 1), ("failed", 0)):
        assert count == registry.get_sample_value("lamina_requests_total", labels | {"outcome": outcome})
    assert registry.get_sample_value("lamina_batch_rows_sum", labels) == 3
    assert registry.get_sample_value("lamina_compute_seconds_count", labels) == 1
    assert registry.get_sample_value("lamina_queue_seconds_count", labels) == 3
    assert 0 == registry.get_sample_value("lamina_admitted_bytes") == registry.get_sample_value("lamina_admitted_requests")


async def test_an_unknown_model_or_version_is_not_found(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double())
    async with serving(tmp_path, selector(engine)) as models:
        with pytest.raises(NotFound, match="there is no model absent"):
            await ask(models, "absent")
        with pytest.raises(NotFound, match=r"without a name: name one in model_name .*RepositoryIndex lists them"):
            await ask(models, "")
        with pytest.raises(NotFound, match=r"without a name: .*RepositoryIndex lists them"):
            await models.load("")
        with pytest.raises(NotFound, match="no version 7; it has 1"):
            models.facts("double", "7")


async def test_memory_of_the_queue_is_free_again_after_each_ending(tmp_path: Path) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    registry = CollectorRegistry()
    runtimes = discover()
    assert isinstance(runtimes.reference, OnnxRuntimeLoader)
    async with serving(tmp_path, EngineSelector(runtimes), metrics=registry) as models:
        tasks = [ask(models, seconds=0.0005 * number if number % 3 else None) for number in range(300)]
        for task in tasks[::7]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert 0 == registry.get_sample_value("lamina_admitted_bytes") == registry.get_sample_value("lamina_admitted_requests")
    assert registry.get_sample_value("lamina_waiting_requests", {"model": "double", "version": "1"}) == 0


async def test_each_of_many_mixed_requests_ends_once_with_its_own_answer(tmp_path: Path, engine: ReferenceLoader) -> None:
    """Random rows, clients, priorities, deadlines and cancellations, with two instances."""
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"{BATCHES} instance_group {{ count: 2 }}")
    registry = CollectorRegistry()
    random = np.random.default_rng(7)
    async with serving(tmp_path, selector(engine), metrics=registry) as models:
        slow_from_now(engine, 0.001)
        tasks = {}
        for value in range(1500):
            seconds = float(random.random() * 0.2) if random.random() < 0.3 else None
            client, priority = str(random.integers(5)), int(random.integers(11))
            tasks[value] = ask(models, value=value, rows=int(random.integers(1, 9)), seconds=seconds, client=client, priority=priority)
            if random.random() < 0.1:
                asyncio.get_running_loop().call_later(float(random.random() * 0.2), tasks[value].cancel)
            if value % 50 == 0:
                await asyncio.sleep(0.002)
        ends = dict(zip(tasks, await asyncio.gather(*tasks.values(), return_exceptions=True), strict=True))
    for value, end in ends.items():
        if isinstance(end, BaseException):
            assert isinstance(end, DeadlineExceeded | asyncio.CancelledError)
        else:
            assert {2.0 * value} == set(end.outputs["doubled"].flat)
    assert 800 < sum(not isinstance(end, BaseException) for end in ends.values())
    assert 0 == registry.get_sample_value("lamina_admitted_bytes") == registry.get_sample_value("lamina_admitted_requests")
    assert all(count <= 8 for count in rows(engine.runs))


async def test_a_model_that_has_been_announced_is_not_missing_before_its_load_begins(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    models = ServingModels(ModelRepository(tmp_path), {"cpu": selector(engine)}, metrics=CollectorRegistry())
    assert ["double"] == list(await models.announce())
    with pytest.raises(Unavailable, match="double is still loading"):
        models.facts("double")
    with pytest.raises(NotFound):
        models.facts("other")
    await models.load_all()
    assert "double" == models.facts("double").name
    await models.close(grace_seconds=1)
