"""What of a repository serves, under which configuration, and what is told of the rest."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from inference import model_config_pb2

from inference_server.engine.runtimes import discover
from inference_server.engine.selection.selector import EngineSelector
from inference_server.errors import ConfigurationError, InvalidTensor, ModelFailed, NotFound, Unavailable
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import InferenceRequest
from inference_server.scheduler.status import ModelState
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader, selector


@pytest.fixture
def engine() -> ReferenceLoader:
    return ReferenceLoader()


BROKEN = {
    "not_onnx": ("", b"this is no model", r"cannot load model\.onnx"),
    "no_file": ("", None, r"no readable model\.onnx; its folder holds: nothing"),
    "typo": ("max_batch: 3", b"", r"not a model configuration.*max_batch"),
    "other_name": ('name: "another"', b"", "its name is another"),
    "other_platform": ('platform: "pytorch_libtorch"', b"", "only ONNX models"),
    "ensemble": ("ensemble_scheduling { step { } }", b"", "ensemble_scheduling; its input and output must be told"),
    "unknown_engine": ('parameters { key: "lamina.engine" value { string_value: "abacus" } }', b"", "there is no engine abacus on cpu"),
    "bad_warmup": ('parameters { key: "lamina.warmup_shape.x" value { string_value: "wide" } }', b"", "expected sizes such as"),
    "gpu_only": ("instance_group { kind: KIND_GPU }", b"", "KIND_GPU.*runs on cpu"),
    "absent_version": ("version_policy { specific { versions: [4] } }", b"", r"versions \[4\].*there are \[1\]"),
    "odd_sizes": ("max_batch_size: 4 dynamic_batching { preferred_batch_size: [8] }", b"", "expected sizes from 1 to max_batch_size, 4"),
    "other_tensor": ('max_batch_size: 4 input { name: "y" data_type: TYPE_FP32 dims: [4] }', b"", "leaves out the input x"),
    "other_output": (
        'max_batch_size: 4 output { name: "z" data_type: TYPE_FP32 dims: [4] }',
        b"",
        "tensor z; the model's file has doubled",
    ),
    "other_type": (
        'max_batch_size: 4 input { name: "x" data_type: TYPE_INT64 dims: [4] }',
        b"",
        "type int64; the model's file has float32",
    ),
    "other_shape": ('max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: [5] }', b"", r"\[-1, 5\].*\[-1, 4\]"),
    "no_type": ('max_batch_size: 4 input { name: "x" dims: [4] }', b"", "TYPE_INVALID; expected one of TYPE_BOOL"),
    "wrong_warmup": (
        'model_warmup { batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [5] zero_data: true } } }',
        b"",
        "does not fit.*expected",
    ),
}


async def test_a_broken_model_tells_why_and_stops_nobody_else(tmp_path: Path, engine: ReferenceLoader) -> None:
    for name, (config, content, _) in BROKEN.items():
        path = onnx_models.write_model(tmp_path, name, onnx_models.double(), config=config)
        if content:
            path.write_bytes(content)
        elif content is None:
            path.unlink()
    (tmp_path / "no_version").mkdir()
    onnx_models.write_model(tmp_path, "sound", onnx_models.double())
    async with serving(tmp_path, selector(engine)) as models:
        statuses = {status.name: status for status in models.index()}
        assert {*BROKEN, "no_version", "sound"} == set(statuses)
        assert (await ask(models, "sound")).outputs["doubled"][0, 0] == 2.0
        with pytest.raises(Unavailable, match=r"model typo could not be loaded: typo/config\.pbtxt is not"):
            await ask(models, "typo")
        with pytest.raises(Unavailable):
            models.facts("other_shape")
    for name, (_, _, reason) in BROKEN.items():
        assert statuses[name].state == ModelState.UNAVAILABLE
        assert str(tmp_path) not in statuses[name].reason
        assert re.search(reason, statuses[name].reason), f"{name}: {statuses[name].reason}"
    assert "put its file into no_version/1/model.onnx" in statuses["no_version"].reason
    assert statuses["sound"].state == ModelState.READY


async def test_folders_that_begin_with_underscore_or_dot_are_no_models(tmp_path: Path, engine: ReferenceLoader) -> None:
    for name in ("_catalogue", ".cache", "double"):
        onnx_models.write_model(tmp_path, name, onnx_models.double())
    async with serving(tmp_path, selector(engine)) as models:
        assert [status.name for status in models.index()] == ["double"]
        with pytest.raises(NotFound):
            await models.load("_catalogue")
        with pytest.raises(NotFound):
            await models.load("../" + tmp_path.name)


async def test_a_repository_that_is_not_there_is_told_at_once(tmp_path: Path, engine: ReferenceLoader) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read; create it"):
        async with serving(tmp_path / "absent", selector(engine)):
            pass


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", ("10",)),
        ("version_policy { latest { num_versions: 2 } }", ("2", "10")),
        ("version_policy { all { } }", ("1", "2", "10")),
        ("version_policy { specific { versions: [2, 1] } }", ("1", "2")),
    ],
)
async def test_the_version_policy_says_what_serves(tmp_path: Path, engine: ReferenceLoader, policy: str, expected: tuple[str, ...]) -> None:
    for version in ("1", "2", "10", "007", "draft"):
        onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=policy, version=version)
    async with serving(tmp_path, selector(engine)) as models:
        assert expected == models.versions("double")
        assert expected[-1] == (await ask(models)).version
        assert expected[0] == models.facts("double", expected[0]).version


async def test_a_model_without_config_gets_a_whole_one(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double())
    async with serving(tmp_path, selector(engine), options=SchedulingOptions(default_max_batch_size=16)) as models:
        config = models.config("double")
        assert models.facts("double").max_batch_size == 16
    expected = text_format.Parse(
        """name: "double" platform: "onnxruntime_onnx" backend: "onnxruntime" default_model_filename: "model.onnx"
        max_batch_size: 16 dynamic_batching { } version_policy { latest { num_versions: 1 } } instance_group { name: "double_0" count: 1 }
        input { name: "x" data_type: TYPE_FP32 dims: [4] }
        output { name: "doubled" data_type: TYPE_FP32 dims: [4] } output { name: "negative" data_type: TYPE_FP32 dims: [4] }""",
        model_config_pb2.ModelConfig(),
    )
    assert expected == config


async def test_a_model_whose_first_dimension_is_fixed_takes_no_batches(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "fixed", onnx_models.fixed(3))
    async with serving(tmp_path, selector(engine)) as models:
        assert models.facts("fixed").max_batch_size == 0
        assert list(models.config("fixed").input[0].dims) == [3, 4]
        assert (await ask(models, "fixed", rows=3)).outputs["doubled"].shape == (3, 4)
        with pytest.raises(InvalidTensor, match=r"input x has the shape \[1, 4\]; expected \[3, 4\]"):
            await ask(models, "fixed", rows=1)


async def test_a_model_whose_rows_depend_on_each_other_is_not_batched_by_guess(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "ranked", onnx_models.ranked())
    async with serving(tmp_path, selector(engine)) as models:
        assert models.facts("ranked").max_batch_size == 0
        answers = await asyncio.gather(ask(models, "ranked", rows=2), ask(models, "ranked", rows=4))
    assert [answer.outputs["share"][0, 0] for answer in answers] == [0.5, 0.25]


async def test_warm_up_requests_are_run_on_each_instance_before_the_model_serves(tmp_path: Path, engine: ReferenceLoader) -> None:
    warmup = """model_warmup { name: "file" batch_size: 3 count: 2
                  inputs { key: "x" value { data_type: TYPE_FP32 dims: [4] input_data_file: "x.raw" } } }"""
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 8 {warmup} instance_group {{ count: 2 }}")
    (tmp_path / "double" / "warmup").mkdir()
    (tmp_path / "double" / "warmup" / "x.raw").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    async with serving(tmp_path, selector(engine)):
        assert len(engine.runs) >= 4
        for run in engine.runs:
            np.testing.assert_array_equal(np.tile(np.arange(4, dtype=np.float32), (3, 1)), run["x"])


async def test_a_warm_up_file_of_the_wrong_size_is_told(tmp_path: Path, engine: ReferenceLoader) -> None:
    warmup = 'model_warmup { name: "w" inputs { key: "x" value { data_type: TYPE_FP32 dims: [4] input_data_file: "x.raw" } } }'
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"max_batch_size: 8 {warmup}")
    (tmp_path / "double" / "warmup").mkdir()
    (tmp_path / "double" / "warmup" / "x.raw").write_bytes(b"short")
    async with serving(tmp_path, selector(engine)) as models:
        assert [status.reason for status in models.index()] == ["model_warmup w: warmup/x.raw has 5 bytes; float32 [4] takes 16"]


async def test_the_owner_may_pin_the_engine_and_the_server_the_rest(tmp_path: Path) -> None:
    pin = 'parameters { key: "lamina.engine" value { string_value: "openvino:float32" } }'
    onnx_models.write_model(tmp_path, "pinned", onnx_models.double(), config=pin)
    onnx_models.write_model(tmp_path, "other", onnx_models.double())
    async with serving(tmp_path, EngineSelector(discover()), options=SchedulingOptions(engine="onnxruntime")) as models:
        assert {name: models.facts(name).engine for name in ("pinned", "other")} == {
            "pinned": "openvino:float32",
            "other": "onnxruntime:float32",
        }
        assert (await ask(models, "pinned")).engine == "openvino:float32"


async def test_strings_are_served_by_the_engine_that_can(tmp_path: Path) -> None:
    onnx_models.write_model(tmp_path, "texts", onnx_models.texts())
    async with serving(tmp_path, EngineSelector(discover())) as models:
        requests = [InferenceRequest(model="texts", inputs={"text": np.array([text], dtype=object)}) for text in ("natrium", "kalium")]
        answers = await asyncio.gather(*map(models.infer, requests))
    assert [answer.outputs["same"].tolist() for answer in answers] == [["natrium"], ["kalium"]]


async def test_a_reload_swaps_the_model_without_losing_a_request(tmp_path: Path, engine: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config="max_batch_size: 2")
    async with serving(tmp_path, selector(engine)) as models:
        engine.seconds = 0.02
        tasks = [ask(models) for _ in range(6)]
        onnx_models.write_model(tmp_path, "double", onnx_models.double(), config="max_batch_size: 5", version="2")
        await models.load("double")
        assert models.versions("double") == ("2",)
        assert models.facts("double").max_batch_size == 5
        assert [(await task).version for task in tasks] == ["1"] * 6


async def test_a_reload_that_fails_leaves_the_model_serving(tmp_path: Path, engine: ReferenceLoader) -> None:
    path = onnx_models.write_model(tmp_path, "double", onnx_models.double())
    async with serving(tmp_path, selector(engine)) as models:
        path.write_bytes(b"half a file")
        with pytest.raises(ModelFailed):
            await models.load("double")
        assert (await ask(models)).outputs["doubled"][0, 0] == 2.0
        (status,) = models.index()
        assert status.state == ModelState.READY
        assert "the version before goes on serving" in status.reason
