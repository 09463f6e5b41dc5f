"""Engines that are built, in real processes over a fake TensorRT, while another engine serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import InferenceRequest
from inference_server.scheduler.registry import ServingModels
from inference_server.scheduler.status import ModelState
from tests.support.gpu.engine_building import builds, gpu_with_tensorrt
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader
from tests.support.models.reference_engine import selector as cpu_selector
from tests.support.virtual_clock import measured_virtually

PROFILE = 'parameters {{ key: "lamina.tensorrt_profile.{0}" value {{ string_value: "{1}" }} }}'
WIDTHS = 'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [-1] } '
NATIVE = "tensorrt:float16"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> ReferenceLoader:
    """Slower than what is built, on every machine, so that it serves only until then."""
    measured_virtually(monkeypatch)
    return ReferenceLoader("onnxruntime-cuda", seconds=0.03)


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.02)


def _states(registry: CollectorRegistry, model: str) -> set[tuple[str, str, str]]:
    return {
        (sample.labels["engine"], sample.labels["precision"], sample.labels["state"])
        for metric in registry.collect()
        if metric.name == "lamina_model_engine_build_state"
        for sample in metric.samples
        if sample.labels["model"] == model and sample.value
    }


def _reason(models: ServingModels) -> str:
    (status,) = models.index()
    assert ModelState.READY == status.state
    return status.reason


async def test_another_engine_serves_until_the_built_one_is_there_and_then_it_does(tmp_path: Path, cuda: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path / "models", "double", onnx_models.double())
    cache, registry = tmp_path / "plans", CollectorRegistry()
    selector = gpu_with_tensorrt(cache, ReferenceLoader(), cuda)
    builder = builds(cache, fault="waits")
    async with serving(tmp_path / "models", {"cuda:0": selector}, metrics=registry, builder=builder) as models:
        assert "onnxruntime-cuda:float32" == (await ask(models)).engine
        await _until(lambda: "Building Engine, 3 of 10" in _reason(models))
        assert f"{NATIVE} is being built" in _reason(models)
        assert "building" == models.builds.state("double", "")
        assert {("tensorrt", "float16", "building")} == _states(registry, "double")
        cache.mkdir(exist_ok=True)
        (cache / "go").touch()
        await _until(lambda: models.facts("double").engine == NATIVE)
        answer = await ask(models, value=3.0)
        assert (NATIVE, 6.0) == (answer.engine, answer.outputs["doubled"][0, 0])
        assert ("", "built") == (_reason(models), models.builds.state("double", "1"))
        assert {("tensorrt", "float16", "built")} == _states(registry, "double")
        await models.unload("double")
        assert set() == _states(registry, "double")


async def test_what_was_built_before_serves_from_the_start(tmp_path: Path, cuda: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path / "models", "double", onnx_models.double())
    cache = tmp_path / "plans"
    for _ in range(2):
        selector = gpu_with_tensorrt(cache, ReferenceLoader(), cuda)
        async with serving(tmp_path / "models", {"cuda:0": selector}, builder=builds(cache)) as models:
            await _until(lambda: models.facts("double").engine == NATIVE)
    async with serving(tmp_path / "models", {"cuda:0": gpu_with_tensorrt(cache, ReferenceLoader(), cuda)}, builder=None) as models:
        assert NATIVE == models.facts("double").engine


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("fails", "tensorrt:float16 could not be built: TensorRT cannot build model.onnx: no kernel"),
        ("crashes", "the process that built it ended with status -9: Myelin: assertion failed"),
    ],
)
async def test_a_build_that_fails_is_told_and_the_other_engine_goes_on(
    tmp_path: Path, cuda: ReferenceLoader, fault: str, reason: str
) -> None:
    onnx_models.write_model(tmp_path / "models", "double", onnx_models.double())
    registry = CollectorRegistry()
    selector = gpu_with_tensorrt(tmp_path / "plans", ReferenceLoader(), cuda)
    builder = builds(tmp_path / "plans", fault=fault)
    async with serving(tmp_path / "models", {"cuda:0": selector}, metrics=registry, builder=builder) as models:
        await _until(lambda: reason in _reason(models))
        assert {("tensorrt", "float16", "failed")} == _states(registry, "double")
        assert "onnxruntime-cuda:float32" == (await ask(models)).engine


async def test_a_built_engine_that_disagrees_does_not_serve(tmp_path: Path, cuda: ReferenceLoader) -> None:
    onnx_models.write_model(tmp_path / "models", "double", onnx_models.double())
    selector = gpu_with_tensorrt(tmp_path / "plans", ReferenceLoader(), cuda, error=0.5)
    async with serving(tmp_path / "models", {"cuda:0": selector}, builder=builds(tmp_path / "plans")) as models:
        before = models.served()
        await _until(lambda: models.served() != before)
        assert "onnxruntime-cuda:float32" == (await ask(models)).engine


async def test_shapes_beyond_the_profiles_run_on_the_other_engine_and_are_counted(tmp_path: Path, cuda: ReferenceLoader) -> None:
    profiles = PROFILE.format(1, "x=1x1:4x8:8x16") + PROFILE.format(2, "x=1x17:4x32:8x64")
    accelerator = 'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }'
    onnx_models.write_model(tmp_path / "models", "widths", onnx_models.widths(), config=WIDTHS + profiles + accelerator)
    registry = CollectorRegistry()
    selector = gpu_with_tensorrt(tmp_path / "plans", ReferenceLoader(), cuda, precisions=())
    async with serving(tmp_path / "models", {"cuda:0": selector}, metrics=registry, builder=builds(tmp_path / "plans")) as models:
        await _until(lambda: models.facts("widths").engine == NATIVE)
        loads = cuda.loads
        for width in (8, 64, 65, 66):
            answer = await models.infer(InferenceRequest(model="widths", inputs={"x": np.ones((1, width), np.float32)}))
            assert (1, width) == answer.outputs["doubled"].shape
        assert 1 == cuda.loads - loads
        labels = {"model": "widths", "version": "1", "device": "cuda:0"}
        assert 2 == registry.get_sample_value("lamina_model_outside_profiles_total", labels)
        assert 0 < (registry.get_sample_value("lamina_model_device_seconds_total", labels) or 0)


async def test_a_profile_that_does_not_fit_the_model_is_told_when_it_loads(tmp_path: Path, cuda: ReferenceLoader) -> None:
    config = WIDTHS + PROFILE.format(1, "y=1x1:4x8:8x16")
    onnx_models.write_model(tmp_path / "models", "widths", onnx_models.widths(), config=config)
    async with serving(tmp_path / "models", {"cuda:0": gpu_with_tensorrt(tmp_path / "plans", ReferenceLoader(), cuda)}) as models:
        (status,) = models.index()
    assert (ModelState.UNAVAILABLE, True) == (status.state, "names the inputs y; the model has x" in status.reason)


async def test_a_plan_of_the_owner_serves_on_a_gpu_and_is_refused_elsewhere(tmp_path: Path, cuda: ReferenceLoader) -> None:
    plans = tmp_path / "plans"
    onnx_models.write_model(tmp_path / "onnx", "double", onnx_models.double())
    selector = gpu_with_tensorrt(plans, ReferenceLoader(), cuda)
    async with serving(tmp_path / "onnx", {"cuda:0": selector}, builder=builds(plans)) as models:
        await _until(lambda: models.facts("double").engine == NATIVE)
    (built,) = plans.glob("*/model.plan")
    version = tmp_path / "models" / "own" / "1"
    version.mkdir(parents=True)
    built.rename(version / "model.plan")
    for config in ('platform: "tensorrt_plan"', ""):
        (version.parent / "config.pbtxt").write_text(config)
        async with serving(tmp_path / "models", {"cuda:0": selector}) as models:
            answer = await ask(models, "own", value=2.0)
            assert ("tensorrt:plan", 4.0) == (answer.engine, answer.outputs["doubled"][0, 0])
            assert ("tensorrt_plan", "tensorrt", 32) == (
                models.config("own").platform,
                models.config("own").backend,
                models.facts("own").max_batch_size,
            )
    async with serving(tmp_path / "models", cpu_selector(ReferenceLoader())) as models:
        (status,) = models.index()
    assert "model.plan is a plan of TensorRT, which is to run on cpu with numpy; run it on a GPU with TensorRT" in status.reason


async def test_a_model_that_does_not_fit_into_the_memory_of_the_gpu_is_refused(tmp_path: Path, cuda: ReferenceLoader) -> None:
    path = onnx_models.write_model(tmp_path / "models", "large", onnx_models.double())
    (path.parent / "weights.data").write_bytes(bytes(3 * 2**20))
    registry = CollectorRegistry()
    selector = gpu_with_tensorrt(tmp_path / "plans", ReferenceLoader(), cuda)
    async with serving(
        tmp_path / "models", {"cuda:0": selector}, metrics=registry, options=SchedulingOptions(gpu_memory_bytes=4 * 2**20)
    ) as models:
        (status,) = models.index()
    assert "is likely to take 6.0 MiB, and 4.0 MiB of the 4.0 MiB for models are free on cuda:0" in status.reason
    assert "raise INFERENCE_GPU_MEMORY_BYTES" in status.reason
    assert 0 == registry.get_sample_value("lamina_gpu_model_memory_bytes", {"device": "cuda:0"})
