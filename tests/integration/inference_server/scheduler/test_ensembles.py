"""Graphs of models that serve like one."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest

from inference_server.errors import ConfigurationError, DeadlineExceeded, InvalidTensor, Unavailable
from inference_server.scheduler.port import InferenceRequest
from inference_server.scheduler.status import ModelState
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models, small_models
from tests.support.models.reference_engine import ReferenceLoader, selector
from tests.support.moved_clock import moved_clock

TENSORS = """input { name: "x" data_type: TYPE_FP32 dims: [4] }
             output { name: "total" data_type: TYPE_FP32 dims: [4] } output { name: "half" data_type: TYPE_FP32 dims: [4] } """
# x → doubled, negative → their sum, their difference.
DIAMOND = f"""platform: "ensemble" max_batch_size: 8 {TENSORS} ensemble_scheduling {{
  step {{ model_name: "both" model_version: -1 input_map {{ key: "a" value: "twice" }} input_map {{ key: "b" value: "minus" }}
          output_map {{ key: "sum" value: "total" }} }}
  step {{ model_name: "double" model_version: 1 input_map {{ key: "x" value: "x" }}
          output_map {{ key: "doubled" value: "twice" }} output_map {{ key: "negative" value: "minus" }} }}
  step {{ model_name: "again" input_map {{ key: "x" value: "minus" }} output_map {{ key: "doubled" value: "half" }} }}
}}"""


@pytest.fixture
def engine() -> ReferenceLoader:
    return ReferenceLoader()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    onnx_models.write_model(tmp_path, "double", onnx_models.double())
    onnx_models.write_model(tmp_path, "again", onnx_models.double())
    small_models.write_model(tmp_path, "both", small_models.sum_and_difference())
    return tmp_path


def write_ensemble(root: Path, config: str, name: str = "an_ensemble") -> None:
    (root / name).mkdir()
    (root / name / "config.pbtxt").write_text(config)


async def test_a_graph_needs_no_file_and_answers_like_one_model(repository: Path, engine: ReferenceLoader) -> None:
    write_ensemble(repository, DIAMOND)
    async with serving(repository, selector(engine)) as models:
        answer = await ask(models, "an_ensemble", value=3.0, rows=2)
        assert {"total": [3.0] * 2, "half": [-6.0] * 2} == {name: tensor[:, 0].tolist() for name, tensor in answer.outputs.items()}
        assert ("an_ensemble", "1", "ensemble") == (answer.model, answer.version, answer.engine)
        wanted = InferenceRequest(model="an_ensemble", inputs={"x": np.ones((1, 4), np.float32)}, outputs=("half",))
        assert {"half"} == set((await models.infer(wanted)).outputs)
        assert ["x"] == [spec.name for spec in models.facts("an_ensemble").inputs]
        # Of all its steps, which run at the same time for several requests.
        assert 3 == models.facts("an_ensemble").instances
        assert "ensemble" == models.config("an_ensemble").platform
        (statistics,) = models.statistics("an_ensemble")
        assert (3, 2) == (statistics.inference_count, statistics.success.count)
        assert 2 == models.statistics("double")[0].success.count


async def test_steps_of_several_requests_share_the_models_batches(repository: Path, engine: ReferenceLoader) -> None:
    write_ensemble(repository, DIAMOND)
    async with serving(repository, selector(engine)) as models:
        engine.runs.clear()
        answers = await asyncio.gather(*(ask(models, "an_ensemble", value=float(value)) for value in range(3)))
    assert [0.0, 1.0, 2.0] == [answer.outputs["total"][0, 0] for answer in answers]
    assert [0.0, 1.0, 2.0] == engine.runs[0]["x"][:, 0].tolist()
    assert 3 == len(engine.runs)


async def test_an_ensemble_of_ensembles_is_loaded_after_those_it_is_made_of(repository: Path, engine: ReferenceLoader) -> None:
    write_ensemble(repository, DIAMOND, "z_inner")
    step = 'step { model_name: "z_inner" input_map { key: "x" value: "x" } output_map { key: "total" value: "y" } }'
    write_ensemble(
        repository,
        'max_batch_size: 2 input { name: "x" data_type: TYPE_FP32 dims: 4 } output { name: "y" data_type: TYPE_FP32 dims: 4 } '
        f"ensemble_scheduling {{ {step} }}",
        "a_outer",
    )
    async with serving(repository, selector(engine)) as models:
        assert models.is_ready("a_outer")
        assert 5.0 == (await ask(models, "a_outer", value=5.0)).outputs["y"][0, 0]


async def test_a_wrong_request_is_told_before_any_step_runs(repository: Path, engine: ReferenceLoader) -> None:
    write_ensemble(repository, DIAMOND)
    async with serving(repository, selector(engine)) as models:
        engine.runs.clear()
        with pytest.raises(InvalidTensor, match="a batch of 9 rows; expected 1 to 8"):
            await ask(models, "an_ensemble", rows=9)
    assert [] == engine.runs


async def test_a_deadline_holds_for_all_steps_together(repository: Path, engine: ReferenceLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ensemble(repository, DIAMOND)
    moved_clock(monkeypatch)
    async with serving(repository, selector(engine)) as models:
        engine.runs.clear()
        engine.seconds = 1000.0
        with pytest.raises(DeadlineExceeded):
            await ask(models, "an_ensemble", seconds=500.0)
    assert 1 == len(engine.runs)


async def test_cancelling_frees_the_queues_of_all_steps(repository: Path, engine: ReferenceLoader) -> None:
    write_ensemble(repository, DIAMOND)
    async with serving(repository, selector(engine)) as models:
        with engine.held():
            first, second = ask(models, value=1.0), ask(models, "an_ensemble", value=2.0)
            await engine.begun()
            second.cancel()
        await first
        async with asyncio.timeout(60):
            while models.admission.requests:
                await asyncio.sleep(0.001)
    assert 1 == len(engine.runs)


async def test_an_ensemble_is_not_ready_without_its_models(repository: Path, engine: ReferenceLoader) -> None:
    write_ensemble(repository, DIAMOND)
    async with serving(repository, selector(engine)) as models:
        await models.unload("both")
        assert not models.is_ready("an_ensemble")
        with pytest.raises(Unavailable, match="model both is"):
            await ask(models, "an_ensemble")


async def test_an_ensemble_never_comes_to_need_itself(repository: Path, engine: ReferenceLoader) -> None:
    """Nor when a model that it is made of is replaced by an ensemble that is made of it."""
    write_ensemble(repository, DIAMOND)
    async with serving(repository, selector(engine)) as models:
        step = 'step { model_name: "an_ensemble" input_map { key: "x" value: "x" } output_map { key: "total" value: "doubled" } }'
        tensors = 'input { name: "x" data_type: TYPE_FP32 dims: 4 } output { name: "doubled" data_type: TYPE_FP32 dims: 4 }'
        (repository / "again" / "config.pbtxt").write_text(f"max_batch_size: 8 {tensors} ensemble_scheduling {{ {step} }}")
        with pytest.raises(ConfigurationError, match="ensemble again would need itself"):
            await models.load("again")
        assert 1.0 == (await ask(models, "an_ensemble")).outputs["total"][0, 0]


BROKEN = {
    "absent": ('model_name: "both"', 'model_name: "nobody"', "cannot use nobody: there is no model nobody"),
    "version": ("model_version: 1", "model_version: 7", "has no version 7"),
    "cycle": ('key: "x" value: "x"', 'key: "x" value: "total"', "has the input x, which no step takes"),
    "waiting": ('model_name: "double" model_version: 1 input_map { key: "x" value: "x" }',
                'model_name: "both" input_map { key: "a" value: "x" } input_map { key: "b" value: "half" }', "steps that wait for each"),
    "no_source": ('key: "b" value: "minus"', 'key: "b" value: "lost"', "uses the tensor lost, which is no input and no step makes"),
    "two_sources": ('value: "half" } }', 'value: "total" } }', "makes the tensor total more than once"),
    "input": ('key: "a"', 'key: "c"', "maps the inputs b, c of both; it takes a, b"),
    "output": ('key: "sum"', 'key: "product"', "maps the output product of both; it makes sum, difference"),
    "shape": ('name: "total" data_type: TYPE_FP32 dims: [4]', 'name: "total" data_type: TYPE_FP32 dims: [5]', r"float32 \[-1, 5\]"),
    "type": ('name: "x" data_type: TYPE_FP32', 'name: "x" data_type: TYPE_INT64', r"is int64 \[-1, 4\]; expected float32"),
    "batch": ("max_batch_size: 8", "max_batch_size: 64", "has max_batch_size 64; its model double takes 32"),
    "itself": ('model_name: "again"', 'model_name: "an_ensemble"', "names itself"),
    "instances": ("ensemble_scheduling", "instance_group { count: 2 } ensemble_scheduling", "asks for instance_group"),
    "flight": ("ensemble_scheduling {", "ensemble_scheduling { max_inflight_requests: 3", "max_inflight_requests"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_graph_that_does_not_fit_is_refused_when_it_loads(repository: Path, engine: ReferenceLoader, fault: str) -> None:
    old, new, reason = BROKEN[fault]
    assert old in DIAMOND
    write_ensemble(repository, DIAMOND.replace(old, new, 1))
    async with serving(repository, selector(engine)) as models:
        (status,) = [status for status in models.index() if status.name == "an_ensemble"]
    assert ModelState.UNAVAILABLE == status.state
    assert re.search(reason, status.reason), status.reason
