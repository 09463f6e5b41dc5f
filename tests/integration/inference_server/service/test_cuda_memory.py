"""CUDA shared memory: refused without a GPU; over a fake of its memory, regions alone and used by requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc

from inference_server import app
from inference_server.errors import AlreadyExists, InvalidInput, NotEnabled, NotFound
from inference_server.service.open_inference.cuda_memory import CudaMemory, SharedRegions
from inference_server.service.open_inference.shared_memory import SharedMemory
from tests.support.gpu.fake_peer_memory import FakePeerMemory
from tests.support.inference_server.running_application import running_application
from tests.support.models.requests import failure, floats, infer_request

SECRET = "secret-handle"
BIG = 2**63


@pytest.fixture
def memory() -> FakePeerMemory:
    """An allocation of 4096 bytes."""
    return FakePeerMemory(**{SECRET: 4096})


@pytest.fixture
def regions(memory: FakePeerMemory) -> CudaMemory:
    return CudaMemory(memory, devices=(0,), most_regions=2)


def _content(memory: FakePeerMemory) -> np.ndarray[Any, Any]:
    return memory.allocations[memory.handle(SECRET)]


def test_a_part_of_an_allocation_is_read_and_written(memory: FakePeerMemory, regions: CudaMemory) -> None:
    regions.register("r", memory.handle(SECRET), device=0, size=50)
    _content(memory)[:4] = list(b"abcd")
    region = regions.find("r")
    assert region is not None
    assert b"bcd" == bytes(region.read(1, 3))
    assert b"" == bytes(region.read(50, 0))
    region.write(46, b"wxyz")
    assert b"\0\0wxyz\0\0" == _content(memory)[44:52].tobytes()
    assert {"r": (0, 50)} == {name: (facts.device, facts.size) for name, facts in regions.status().items()}


@pytest.mark.parametrize(("offset", "size"), [(0, 51), (50, 1), (51, 0), (-1, 4), (4, -1), (BIG, 4), (4, BIG), (BIG - 1, BIG - 1)])
def test_no_byte_outside_of_a_region_is_reached(memory: FakePeerMemory, regions: CudaMemory, offset: int, size: int) -> None:
    regions.register("r", memory.handle(SECRET), device=0, size=50)
    region = regions.find("r")
    assert region is not None
    with pytest.raises(InvalidInput, match="do not lie within the CUDA shared memory region r of 50 bytes"):
        region.read(offset, size)


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"size": 4097}, InvalidInput, "reaches beyond the end of its allocation"),
        ({"size": 0}, InvalidInput, "has no size"),
        ({"size": 2**64 - 1}, InvalidInput, "has no size, or one beyond any allocation"),
        ({"device": 1}, InvalidInput, r"is on GPU 1; expected one of \[0\]"),
        ({"device": -1}, InvalidInput, "is on GPU -1"),
        ({"handle": b"secret-handle"}, InvalidInput, "has 13 bytes; expected 64"),
        ({"handle": b"secret-other".ljust(64, b"\0")}, NotFound, "cannot be opened; its process must run on this machine"),
        ({"name": ""}, InvalidInput, "has 1 to 256 characters"),
    ],
)
def test_what_cannot_be_registered_is_told_without_its_handle(
    memory: FakePeerMemory, regions: CudaMemory, change: dict[str, Any], kind: type[Exception], reason: str
) -> None:
    given = {"name": "r", "handle": memory.handle(SECRET), "device": 0, "size": 64} | change
    with pytest.raises(kind, match=reason) as caught:
        regions.register(given.pop("name"), given.pop("handle"), **given)
    assert "secret" not in str(caught.value)
    assert ({}, {}) == (regions.status(), memory.opened)


def test_a_name_is_given_once_and_there_are_not_too_many(memory: FakePeerMemory, regions: CudaMemory) -> None:
    handle = memory.handle(SECRET)
    regions.register("a", handle, device=0, size=1)
    with pytest.raises(AlreadyExists):
        regions.register("a", handle, device=0, size=1)
    regions.register("b", handle, device=0, size=1)
    with pytest.raises(InvalidInput, match="2 CUDA shared memory regions are registered"):
        regions.register("c", handle, device=0, size=1)
    regions.unregister("a")
    regions.unregister("a")
    regions.register("c", handle, device=0, size=1)
    regions.unregister()
    assert {} == memory.opened


def test_memory_that_went_away_ends_its_request_and_not_the_server(memory: FakePeerMemory, regions: CudaMemory) -> None:
    regions.register("r", memory.handle(SECRET), device=0, size=64)
    region = regions.find("r")
    assert region is not None
    memory.lost = True
    for use in (lambda: region.read(0, 4), lambda: region.write(0, b"abcd")):
        with pytest.raises(InvalidInput, match="cannot be reached any more; register it anew"):
            use()
    regions.unregister("r")
    with pytest.raises(InvalidInput, match="unregistered while a request used it"):
        region.read(0, 4)


def test_a_name_that_nobody_registered_is_told_as_such() -> None:
    both = SharedRegions(SharedMemory(["lamina_"]), CudaMemory())
    with pytest.raises(NotFound):
        both.region("r")
    with pytest.raises(NotEnabled):
        SharedRegions(SharedMemory(), CudaMemory()).region("r")


async def test_a_server_on_the_cpu_refuses_it_with_failed_precondition(small_repository: Path, tmp_path: Path) -> None:
    async with (
        running_application(small_repository, tmp_path, cuda_shared_memory=True) as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        stub = wire_grpc.GRPCInferenceServiceStub(channel)
        request = wire.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"secret".ljust(64), byte_size=64)
        code, details = await failure(stub.CudaSharedMemoryRegister(request))
        assert (grpc.StatusCode.FAILED_PRECONDITION, True) == (code, "the server runs on the CPU" in details)
        assert "secret" not in details
        metadata = await stub.ServerMetadata(wire.ServerMetadataRequest())
        assert "cuda_shared_memory" not in metadata.extensions


@pytest_asyncio.fixture
async def stub(small_repository: Path, tmp_path: Path, memory: FakePeerMemory, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A server whose GPU's memory is the fake's."""
    monkeypatch.setattr(app, "_cuda_memory", lambda settings: CudaMemory(memory, devices=(0,)))
    async with (
        running_application(small_repository, tmp_path, shared_memory="lamina_") as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        yield wire_grpc.GRPCInferenceServiceStub(channel)


async def test_inputs_and_outputs_lie_in_memory_of_the_gpu(stub: Any, memory: FakePeerMemory) -> None:
    await stub.CudaSharedMemoryRegister(
        wire.CudaSharedMemoryRegisterRequest(name="r", raw_handle=memory.handle(SECRET), device_id=0, byte_size=4096)
    )
    _content(memory)[:32] = np.frombuffer(floats(1, 2).tobytes(), np.uint8)
    request = infer_request("sum_and_difference", a=floats(1, 2), b=floats(3, 5), outputs=("sum", "difference"))
    del request.raw_input_contents[0]
    for tensor, size, offset in ((request.inputs[0], 32, 0), (request.outputs[0], 40, 4000)):
        tensor.parameters["shared_memory_region"].string_param = "r"
        tensor.parameters["shared_memory_byte_size"].int64_param = size
        tensor.parameters["shared_memory_offset"].int64_param = offset
    response = await stub.ModelInfer(request)
    assert floats(4, 7).ravel().tolist() == _content(memory)[4000:4032].view(np.float32).tolist()
    assert [b"", floats(-2, -3).tobytes()] == list(response.raw_output_contents)
    status = await stub.CudaSharedMemoryStatus(wire.CudaSharedMemoryStatusRequest(name="r"))
    assert (4096, 0) == (status.regions["r"].byte_size, status.regions["r"].device_id)
    metadata = await stub.ServerMetadata(wire.ServerMetadataRequest())
    assert {"cuda_shared_memory", "system_shared_memory"} <= set(metadata.extensions)
    taken = wire.SystemSharedMemoryRegisterRequest(name="r", key="lamina_x", byte_size=64)
    assert grpc.StatusCode.ALREADY_EXISTS is (await failure(stub.SystemSharedMemoryRegister(taken)))[0]
    await stub.CudaSharedMemoryUnregister(wire.CudaSharedMemoryUnregisterRequest())
    assert grpc.StatusCode.NOT_FOUND is (await failure(stub.ModelInfer(request)))[0]
    assert {} == memory.opened
