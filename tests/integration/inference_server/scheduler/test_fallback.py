"""The CPU in the place of a GPU that fails, caused by an engine that does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from inference import grpc_service_pb2 as wire
from prometheus_client import CollectorRegistry

from inference_server.engine.failures import failure_on_device
from inference_server.errors import DeviceFailed, DeviceMissing, ModelFailed
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import Caller, Device
from inference_server.scheduler.status import ModelState
from inference_server.service.lifecycle import BytesInFlight
from inference_server.service.open_inference.infer_calls import InferCalls
from inference_server.service.open_inference.shared_memory import SharedMemory
from inference_server.service.open_inference.wire_format import parse_request
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceEngine, ReferenceLoader, gpu_selector, selector

CONFIG = 'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [4] }'
ALLOWED = SchedulingOptions(cpu_fallback=True)
OUT_OF_MEMORY = failure_on_device("the run failed", "CUDA failure 2: out of memory ; GPU=0")


@pytest.fixture
def cpu() -> ReferenceLoader:
    return ReferenceLoader("numpy")


@pytest.fixture
def gpu() -> ReferenceLoader:
    return ReferenceLoader("pretended-gpu")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=CONFIG)
    return tmp_path


async def test_a_request_that_the_gpu_cannot_run_is_answered_by_the_cpu_and_says_so(
    repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader
) -> None:
    registry = CollectorRegistry()
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}, metrics=registry, options=ALLOWED) as models:
        before = await ask(models)
        gpu.failure = OUT_OF_MEMORY
        failed = await asyncio.gather(ask(models, value=2.0), ask(models, value=3.0))
        gpu.failure = None
        after = await ask(models)
    told = [(answer.engine, answer.fallback) for answer in (before, *failed, after)]
    own, spare = ("pretended-gpu:float32", ""), ("numpy:float32", "out_of_memory")
    assert [own, spare, spare, own] == told
    assert [4.0, 6.0] == [answer.outputs["doubled"][0, 0] for answer in failed]
    labels = {"model": "double", "version": "1", "cause": "out_of_memory"}
    assert 2.0 == registry.get_sample_value("lamina_fallbacks_total", labels)


async def test_the_batch_falls_back_as_one(repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader) -> None:
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}, options=ALLOWED) as models:
        gpu.failure = OUT_OF_MEMORY
        cpu.runs.clear()
        await asyncio.gather(*(ask(models) for _ in range(5)))
    assert [5] == [len(inputs["x"]) for inputs in cpu.runs]


async def test_without_leave_the_request_fails(repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader) -> None:
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}) as models:
        gpu.failure = OUT_OF_MEMORY
        cpu.runs.clear()
        with pytest.raises(DeviceFailed):
            await ask(models)
    assert [] == cpu.runs


async def test_what_is_the_models_own_fault_does_not_fall_back(repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader) -> None:
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}, options=ALLOWED) as models:
        gpu.failure = failure_on_device("the run failed", "Gather node: indices element out of data bounds")
        cpu.runs.clear()
        with pytest.raises(ModelFailed):
            await ask(models)
    assert [] == cpu.runs


async def test_a_model_without_an_engine_on_the_gpu_serves_on_the_cpu_and_every_answer_says_so(
    repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader
) -> None:
    gpu.load_failure = DeviceFailed("no engine is built for the model", cause="engine_not_built")
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}, options=ALLOWED) as models:
        answers = [await ask(models) for _ in range(2)]
    assert [("numpy:float32", "engine_not_built")] * 2 == [(answer.engine, answer.fallback) for answer in answers]


async def test_without_leave_a_model_without_an_engine_does_not_serve(repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader) -> None:
    gpu.load_failure = DeviceFailed("no engine is built for the model", cause="engine_not_built")
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}) as models:
        (status,) = models.index()
    assert ModelState.UNAVAILABLE == status.state
    assert "no engine is built for the model" in status.reason


async def test_the_response_of_the_protocol_tells_the_cause(repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader) -> None:
    ask_for = wire.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 4])
    message = wire.ModelInferRequest(model_name="double", inputs=[ask_for], raw_input_contents=[bytes(16)])
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}, options=ALLOWED) as models:
        in_flight = BytesInFlight(most=2**20, observe=lambda _: None)
        calls = InferCalls(models, SharedMemory(()), in_flight, most_shared_bytes=0)
        told = []
        for gpu.failure in (None, OUT_OF_MEMORY):
            response = await calls.infer(parse_request(message.SerializeToString()), lambda _: Caller())
            told.append({key: value.string_param for key, value in response.message.parameters.items() if value.string_param})
    assert [{"engine": "pretended-gpu:float32"}, {"engine": "numpy:float32", "lamina_fallback": "out_of_memory"}] == told


async def test_a_request_for_the_gpu_alone_fails_with_it_and_others_of_its_batch_are_answered_by_the_cpu(
    repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader
) -> None:
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}, options=ALLOWED) as models:
        served = await ask(models, device=Device.GPU)
        gpu.failure = OUT_OF_MEMORY
        cpu.runs.clear()
        asked = [ask(models, value=1.0), ask(models, value=2.0, device=Device.GPU), ask(models, value=3.0)]
        failed = await asyncio.gather(*asked, return_exceptions=True)
        alone = await asyncio.gather(ask(models, device=Device.GPU), return_exceptions=True)
    assert ("pretended-gpu:float32", "") == (served.engine, served.fallback)
    told = [answer.cause if isinstance(answer, DeviceFailed) else answer.outputs["doubled"][0, 0] for answer in (*failed, *alone)]
    assert [2.0, "out_of_memory", 6.0, "out_of_memory"] == told
    assert [2] == [len(inputs["x"]) for inputs in cpu.runs]


class SmallGpu(ReferenceLoader):
    """Has room for as much as one copy of a model takes, its choice included."""

    most = 0

    def load(self, *arguments: Any, **more: Any) -> ReferenceEngine:
        if self.most and self.loads == self.most:
            raise OUT_OF_MEMORY
        return super().load(*arguments, **more)


async def test_a_copy_that_could_not_be_loaded_on_its_gpu_answers_no_request_for_the_gpu_alone(
    tmp_path: Path, cpu: ReferenceLoader
) -> None:
    gpu = SmallGpu("pretended-gpu")
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=CONFIG)
    async with serving(tmp_path, {"cuda:0": gpu_selector(cpu, gpu)}, options=ALLOWED):
        gpu.most, gpu.loads = gpu.loads, 0
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"{CONFIG} instance_group {{ count: 2 kind: KIND_GPU }}")
    async with serving(tmp_path, {"cuda:0": gpu_selector(cpu, gpu)}, options=ALLOWED) as models:
        with cpu.held():
            # One batch, which the copy on the CPU is given; meanwhile the other is free.
            asked = [ask(models, value=1.0, device=Device.GPU), ask(models, value=2.0)]
            await cpu.begun()
            by_gpu = await ask(models, device=Device.GPU)
        barred, by_cpu = await asyncio.gather(*asked, return_exceptions=True)
    assert ("pretended-gpu:float32", "") == (by_gpu.engine, by_gpu.fallback)
    assert isinstance(barred, DeviceFailed)
    assert "out_of_memory" == barred.cause
    assert not isinstance(by_cpu, BaseException)
    assert ("numpy:float32", "out_of_memory", 4.0) == (by_cpu.engine, by_cpu.fallback, by_cpu.outputs["doubled"][0, 0])
    assert [1] == [len(inputs["x"]) for inputs in cpu.runs], "nobody waits for what it may not run"


async def test_what_a_gpu_took_to_fail_counts_as_computed(repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader) -> None:
    registry = CollectorRegistry()
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}, metrics=registry, options=ALLOWED) as models:
        gpu.failure = OUT_OF_MEMORY
        await asyncio.gather(ask(models, device=Device.GPU), return_exceptions=True)
    computed = registry.get_sample_value("lamina_compute_seconds_sum", {"model": "double", "version": "1"})
    assert computed is not None
    assert computed > 0


async def test_a_request_for_the_cpu_alone_is_answered_while_the_gpu_hangs(
    repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader
) -> None:
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}, options=ALLOWED) as models:
        with gpu.held():
            waiting = ask(models, device=Device.GPU)
            await gpu.begun()
            answer = await ask(models, value=3.0, device=Device.CPU)
            assert not waiting.done()
        late = await waiting
        (statistics,) = models.statistics("double")
    assert ("numpy:float32", "", 6.0) == (answer.engine, answer.fallback, answer.outputs["doubled"][0, 0])
    assert ("pretended-gpu:float32", 2) == (late.engine, statistics.inference_count), "both are the model's"


async def test_both_lines_of_a_model_are_told_as_its_requests_that_wait(
    repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader
) -> None:
    registry = CollectorRegistry()
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}, metrics=registry, options=ALLOWED) as models:
        with gpu.held(), cpu.held():
            running = [ask(models, device=device) for device in Device]
            await asyncio.gather(gpu.begun(), cpu.begun())
            waiting = [ask(models, device=device) for device in (Device.GPU, Device.CPU, Device.CPU)]
            await asyncio.sleep(0)
            told = registry.get_sample_value("lamina_waiting_requests", {"model": "double", "version": "1"})
            pending = models.served()[0].pending
        answers = await asyncio.gather(*running, *waiting)
    assert (3.0, 3, 5) == (told, pending, len(answers))


async def test_devices_that_do_not_run_a_model_are_told_with_its_name(repository: Path, cpu: ReferenceLoader, gpu: ReferenceLoader) -> None:
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}) as models:
        with pytest.raises(DeviceMissing, match=r"no CPU engine for model double: .*INFERENCE_FALLBACK is none"):
            await ask(models, device=Device.CPU)
    async with serving(repository, selector(cpu)) as models:
        with pytest.raises(DeviceMissing, match="no GPU engine for model double: this server runs it on its CPU"):
            await ask(models, device=Device.GPU)
        assert "numpy:float32" == (await ask(models, device=Device.CPU)).engine
    gpu.load_failure = DeviceFailed("no engine is built for the model", cause="engine_not_built")
    async with serving(repository, {"cuda:0": gpu_selector(cpu, gpu)}, options=ALLOWED) as models:
        with pytest.raises(DeviceMissing, match=r"no GPU engine for model double: .*\(engine_not_built\)"):
            await ask(models, device=Device.GPU)
        assert "numpy:float32" == (await ask(models, device=Device.CPU)).engine


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("CUDA failure 2: out of memory ; GPU=0 ; hostname=x", "out_of_memory"),
        ("Failed to allocate memory for requested buffer of size 1073741824", "out_of_memory"),
        ("CUDNN failure 4: CUDNN_STATUS_INTERNAL_ERROR", "device_lost"),
        ("CUDA error cudaErrorIllegalAddress:an illegal memory access was encountered", "device_lost"),
        ("Gather node: indices element out of data bounds, idx=9", None),
    ],
)
def test_a_devices_failures_are_told_from_a_models(reason: str, cause: str | None) -> None:
    assert cause == getattr(failure_on_device("failed", reason), "cause", None)
