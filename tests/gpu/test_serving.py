"""A whole server on a GPU: builds in the background, metrics, CUDA shared memory of another process, the command that builds."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc

from inference_server.engine.runtimes import Runtimes
from tests.support.inference_server.running_application import running_application
from tests.support.models import onnx_models
from tests.support.models.requests import failure

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
BYTES = 4096
# Allocates, tells the handle, and at the end prints what lies in the second half: another process, as CUDA wants it.
CLIENT = """
import ctypes, sys
import numpy as np
from cuda.bindings import runtime
def call(result):
    status, *values = result
    assert int(status) == 0, status
    return values
call(runtime.cudaSetDevice(0))
(memory,) = call(runtime.cudaMalloc(4096))
content = np.zeros(1024, np.float32); content[:8] = np.arange(8)
kinds = runtime.cudaMemcpyKind
call(runtime.cudaMemcpy(memory, content.ctypes.data, 4096, kinds.cudaMemcpyHostToDevice))
(handle,) = call(runtime.cudaIpcGetMemHandle(memory))
print(ctypes.string_at(handle.getPtr(), 64).hex(), flush=True)
sys.stdin.readline()
call(runtime.cudaMemcpy(content.ctypes.data, memory, 4096, kinds.cudaMemcpyDeviceToHost))
print(content[512:520].tolist(), flush=True)
"""


def _metrics(address: str) -> str:
    return urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode()


def _client() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_a_server_builds_in_the_background_tells_so_and_swaps(gpu: str, found: Runtimes, tmp_path: Path) -> None:
    onnx_models.write_model(tmp_path / "models", "products", onnx_models.products(24))
    async with (
        running_application(tmp_path / "models", tmp_path, device=gpu, engine="auto") as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        stub = wire_grpc.GRPCInferenceServiceStub(channel)
        assert application.models.facts("products").engine == "onnxruntime-cuda:float32"
        index = await stub.RepositoryIndex(wire.RepositoryIndexRequest())
        assert "tensorrt:float16 is being built" in index.models[0].reason
        async with asyncio.timeout(600):
            while True:
                call = stub.ModelReady(wire.ModelReadyRequest(name="products"))
                assert (await call).ready
                if dict(await call.trailing_metadata() or ()).get("lamina-engine-build") == "built":
                    break
                await asyncio.sleep(0.5)
        text = await asyncio.to_thread(_metrics, application.http.address)
    assert 'lamina_model_engine_build_state{engine="tensorrt",model="products",precision="float16",state="built",version="1"} 1.0' in text
    for name in ("lamina_device_memory_used_bytes", "lamina_device_utilisation_ratio", "lamina_gpu_model_memory_bytes"):
        assert f'{name}{{device="cuda:0"' in text
    assert 'lamina_model_device_seconds_total{device="cuda:0",model="products",version="1"}' in text


async def test_tensors_lie_in_memory_that_another_process_allocated(gpu: str, found: Runtimes, tmp_path: Path) -> None:
    onnx_models.write_model(tmp_path / "models", "double", onnx_models.double())
    client = await asyncio.to_thread(_client)
    assert client.stdout
    handle = bytes.fromhex((await asyncio.to_thread(client.stdout.readline)).strip())
    try:
        async with (
            running_application(tmp_path / "models", tmp_path, device=gpu, engine="auto", cuda_shared_memory=True) as application,
            grpc.aio.insecure_channel(application.grpc.address) as channel,
        ):
            stub = wire_grpc.GRPCInferenceServiceStub(channel)
            register = wire.CudaSharedMemoryRegisterRequest(name="r", raw_handle=handle, device_id=0, byte_size=BYTES)
            too_large = wire.CudaSharedMemoryRegisterRequest(name="l", raw_handle=handle, device_id=0, byte_size=2**40)
            code, details = await failure(stub.CudaSharedMemoryRegister(too_large))
            assert (grpc.StatusCode.INVALID_ARGUMENT, True) == (code, "beyond the end" in details)
            await stub.CudaSharedMemoryRegister(register)
            request = wire.ModelInferRequest(model_name="double")
            request.inputs.add(name="x", datatype="FP32", shape=[2, 4])
            request.outputs.add(name="doubled")
            for tensor, offset in ((request.inputs[0], 0), (request.outputs[0], 2048)):
                tensor.parameters["shared_memory_region"].string_param = "r"
                tensor.parameters["shared_memory_byte_size"].int64_param = 32
                tensor.parameters["shared_memory_offset"].int64_param = offset
            await stub.ModelInfer(request)
            await stub.CudaSharedMemoryUnregister(wire.CudaSharedMemoryUnregisterRequest())
            wrong = wire.CudaSharedMemoryRegisterRequest(name="w", raw_handle=bytes(64), device_id=0, byte_size=BYTES)
            assert grpc.StatusCode.NOT_FOUND is (await failure(stub.CudaSharedMemoryRegister(wrong)))[0]
    finally:
        told, _ = client.communicate("go\n", timeout=60)
    np.testing.assert_array_equal(2 * np.arange(8, dtype=np.float32), np.array(eval(told)))


def test_the_command_builds_once_and_tells_failures(gpu: str, found: Runtimes, tmp_path: Path) -> None:
    onnx_models.write_model(tmp_path / "models", "double", onnx_models.double())
    command = [sys.executable, "-m", "inference_server", "models", "compile", "--models", "models", "--engine-cache", "engines"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=800, check=False)

    for _ in range(2):
        ended = run("double", "--precision", "float16", "--profile", "x=1x4:4x4:8x4")
        assert (0, True) == (ended.returncode, "built" in ended.stdout), ended.stderr
    onnx_models.write_model(tmp_path / "models", "texts", onnx_models.texts())
    (tmp_path / "models" / "double" / "1" / "model.onnx").write_bytes(b"no model")
    ended = run("--precision", "float16")
    assert (1, True) == (ended.returncode, "double: model.onnx is no ONNX model" in ended.stderr), ended.stderr
