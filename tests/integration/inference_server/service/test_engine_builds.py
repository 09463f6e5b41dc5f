"""What a client sees of an engine that is built while another serves: over gRPC and on /metrics, with a GPU of numpy."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import grpc
import grpc.aio
import pytest
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc

from inference_server import model_serving
from inference_server.engine import gpu_monitor
from tests.support.gpu.engine_building import builds, gpu_with_tensorrt
from tests.support.inference_server.running_application import running_application
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader
from tests.support.virtual_clock import measured_virtually

STATE = "lamina_model_engine_build_state"


async def test_model_ready_the_index_and_metrics_tell_how_far_a_build_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_models.write_model(tmp_path / "models", "double", onnx_models.double())
    plans = tmp_path / "engines" / "plans"
    plans.mkdir(parents=True)
    measured_virtually(monkeypatch)
    slow = ReferenceLoader("onnxruntime-cuda", seconds=0.03)
    fake, real = gpu_with_tensorrt(plans, ReferenceLoader(), slow)._runtimes, model_serving.runtimes
    monkeypatch.setattr(model_serving, "runtimes", lambda settings, device: fake if device == "cuda:0" else real(settings, device))
    monkeypatch.setattr(model_serving, "EngineBuilds", lambda cache: builds(cache, fault="waits"))
    monkeypatch.setattr(gpu_monitor.GpuMonitor, "_open", lambda self, device: None)
    async with (
        running_application(tmp_path / "models", tmp_path, device="cuda:0", engine="auto") as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        stub = wire_grpc.GRPCInferenceServiceStub(channel)

        async def told() -> tuple[bool, str, str, str]:
            call = stub.ModelReady(wire.ModelReadyRequest(name="double"))
            ready = (await call).ready
            state = dict(await call.trailing_metadata() or ()).get("lamina-engine-build", "")
            (entry,) = (await stub.RepositoryIndex(wire.RepositoryIndexRequest(ready=True))).models
            metadata = await stub.ModelMetadata(wire.ModelMetadataRequest(name="double"))
            return ready, str(state), entry.reason, metadata.platform

        ready, state, reason, platform = await told()
        assert (True, "building", "onnxruntime-cuda:float32") == (ready, state, platform)
        assert "tensorrt:float16 is being built" in reason
        (plans / "go").touch()
        async with asyncio.timeout(60):
            while (seen := await told()) != (True, "built", "", "tensorrt:float16"):
                assert seen[0], "the model serves all the while"
                await asyncio.sleep(0.05)
        address = f"http://{application.http.address}/metrics"
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(address, timeout=60).read().decode())
    assert f'{STATE}{{engine="tensorrt",model="double",precision="float16",state="built",version="1"}} 1.0' in text
    assert 'lamina_gpu_model_memory_bytes{device="cuda:0"}' in text
    assert 'lamina_model_engine_info{device="cuda:0",engine="tensorrt",model="double",precision="float16",version="1"} 1.0' in text
