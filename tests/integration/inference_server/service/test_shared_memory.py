"""System shared memory: regions alone, and used by requests."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from multiprocessing.shared_memory import SharedMemory as Memory
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc

from inference_server.errors import AlreadyExists, InvalidInput, NotEnabled, NotFound
from inference_server.service.open_inference.shared_memory import SharedMemory
from tests.support.inference_server.running_application import running_application
from tests.support.models.requests import failure, floats, infer_request

PREFIX = "lamina_test_"
BIG = 2**63


@pytest.fixture
def memory() -> Iterator[Memory]:
    """An object of 4096 bytes."""
    made = Memory(PREFIX + secrets.token_hex(8), create=True, size=4096)
    yield made
    made.close()
    if Path("/dev/shm", made.name).exists():
        made.unlink()


@pytest.fixture
def regions() -> Iterator[SharedMemory]:
    made = SharedMemory([PREFIX], most_regions=2)
    yield made
    made.unregister()


def test_a_part_of_an_object_is_read_and_written(memory: Memory, regions: SharedMemory) -> None:
    regions.register("r", f"/{memory.name}", offset=100, size=50)
    memory.buf[100:104] = b"abcd"
    region = regions.region("r")
    assert bytes(region.read(1, 3)) == b"bcd"
    region.write(46, b"wxyz")
    assert bytes(memory.buf[144:152]) == b"\0\0wxyz\0\0"
    assert {name: (facts.key, facts.offset, facts.size) for name, facts in regions.status().items()} == {"r": (f"/{memory.name}", 100, 50)}


@pytest.mark.parametrize(("offset", "size"), [(0, 51), (50, 1), (51, 0), (-1, 4), (4, -1), (BIG, 4), (4, BIG), (BIG - 1, BIG - 1)])
def test_no_byte_outside_of_a_region_is_reached(memory: Memory, regions: SharedMemory, offset: int, size: int) -> None:
    regions.register("r", memory.name, offset=0, size=50)
    with pytest.raises(InvalidInput, match="do not lie within"):
        regions.region("r").read(offset, size)


@pytest.mark.parametrize(("offset", "size"), [(0, 4097), (4096, 1), (0, 0), (BIG - 1, 2), (1, BIG - 1), (2**64 - 1, 1)])
def test_a_region_that_does_not_lie_within_its_object_is_refused(memory: Memory, regions: SharedMemory, offset: int, size: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        regions.register("r", memory.name, offset=offset, size=size)
    assert memory.name not in str(caught.value)
    assert regions.status() == {}


@pytest.mark.parametrize(
    "key",
    ["", "/", "..", "../etc/passwd", "/../lamina_test_x", f"{PREFIX}a/../b", f"{PREFIX}/x", "other", f"//{PREFIX}x", f"{PREFIX}\0", "é"],
)
def test_a_key_that_could_name_something_else_is_refused_and_not_told(regions: SharedMemory, key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        regions.register("r", key, offset=0, size=1)
    assert not key.strip("/.") or key not in str(caught.value)


def test_an_object_that_there_is_not_is_told_without_its_key(regions: SharedMemory) -> None:
    with pytest.raises(NotFound) as caught:
        regions.register("r", f"{PREFIX}absent", offset=0, size=1)
    assert "absent" not in str(caught.value)


def test_a_link_and_a_pipe_are_no_shared_memory(regions: SharedMemory) -> None:
    link, pipe = Path("/dev/shm", PREFIX + secrets.token_hex(8)), Path("/dev/shm", PREFIX + secrets.token_hex(8))
    link.symlink_to("/etc/passwd")
    os.mkfifo(pipe)
    try:
        with pytest.raises(NotFound):
            regions.register("r", link.name, offset=0, size=1)
        with pytest.raises(InvalidInput, match="names no shared memory"):
            regions.register("r", pipe.name, offset=0, size=1)
    finally:
        link.unlink()
        pipe.unlink()


def test_a_name_is_given_once_and_there_are_not_too_many(memory: Memory, regions: SharedMemory) -> None:
    regions.register("a", memory.name, offset=0, size=1)
    with pytest.raises(AlreadyExists):
        regions.register("a", memory.name, offset=0, size=1)
    regions.register("b", memory.name, offset=0, size=1)
    with pytest.raises(InvalidInput, match="2 shared memory regions are registered"):
        regions.register("c", memory.name, offset=0, size=1)
    regions.unregister("a")
    regions.unregister("a")
    regions.register("c", memory.name, offset=0, size=1)


def test_an_object_that_was_shortened_ends_its_request_and_not_the_server(memory: Memory, regions: SharedMemory) -> None:
    regions.register("r", memory.name, offset=0, size=4096)
    os.truncate(f"/dev/shm/{memory.name}", 100)
    region = regions.region("r")
    for use in (lambda: region.read(0, 4096), lambda: region.write(0, bytes(4096))):
        with pytest.raises(InvalidInput, match="shorter than it was registered"):
            use()


def test_a_region_that_was_unregistered_is_let_go(memory: Memory, regions: SharedMemory) -> None:
    regions.register("r", memory.name, offset=0, size=10)
    region = regions.region("r")
    regions.unregister()
    with pytest.raises(InvalidInput, match="unregistered while a request used it"):
        region.read(0, 1)
    with pytest.raises(NotFound):
        regions.region("r")


def test_nothing_is_registered_unless_prefixes_are_named(memory: Memory) -> None:
    regions = SharedMemory()
    with pytest.raises(NotEnabled, match="INFERENCE_SHARED_MEMORY"):
        regions.register("r", memory.name, offset=0, size=1)
    with pytest.raises(NotEnabled):
        regions.region("r")
    assert regions.status() == {}


@pytest_asyncio.fixture
async def stub(small_repository: Path, tmp_path: Path) -> AsyncIterator[Any]:
    async with (
        running_application(small_repository, tmp_path, shared_memory=PREFIX, max_message_bytes=2**20) as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        yield wire_grpc.GRPCInferenceServiceStub(channel)


def _register(memory: Memory) -> wire.SystemSharedMemoryRegisterRequest:
    return wire.SystemSharedMemoryRegisterRequest(name="r", key=memory.name, byte_size=4096)


def _place(tensor: Any, size: int, offset: int = 0) -> None:
    tensor.parameters["shared_memory_region"].string_param = "r"
    tensor.parameters["shared_memory_byte_size"].int64_param = size
    tensor.parameters["shared_memory_offset"].int64_param = offset


def _request() -> wire.ModelInferRequest:
    """`a` at the region's start, `b` in the message, `sum` to the region's end."""
    request = infer_request("sum_and_difference", a=floats(1, 2), b=floats(3, 5), outputs=("sum", "difference"))
    del request.raw_input_contents[0]
    _place(request.inputs[0], 32)
    _place(request.outputs[0], 40, 4000)
    return request


async def test_inputs_and_outputs_lie_in_shared_memory_or_in_messages(stub: Any, memory: Memory) -> None:
    await stub.SystemSharedMemoryRegister(_register(memory))
    memory.buf[:32] = floats(1, 2).tobytes()
    response = await stub.ModelInfer(_request())
    assert np.frombuffer(memory.buf[4000:4032], np.float32).tolist() == floats(4, 7).ravel().tolist()
    assert list(response.raw_output_contents) == [b"", floats(-2, -3).tobytes()]
    placed = response.outputs[0].parameters
    assert (placed["shared_memory_region"].string_param, placed["shared_memory_byte_size"].int64_param) == ("r", 32)
    status = await stub.SystemSharedMemoryStatus(wire.SystemSharedMemoryStatusRequest())
    assert status.regions["r"].byte_size == 4096
    await stub.SystemSharedMemoryUnregister(wire.SystemSharedMemoryUnregisterRequest(name="r"))
    assert (await failure(stub.ModelInfer(_request())))[0] is grpc.StatusCode.NOT_FOUND


async def test_copies_of_shared_memory_count_among_the_bytes_in_flight(small_repository: Path, tmp_path: Path, memory: Memory) -> None:
    limits = {"shared_memory": PREFIX, "max_bytes_in_flight": 2**16, "max_message_bytes": 2**20}
    async with (
        running_application(small_repository, tmp_path, **limits) as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        stub = wire_grpc.GRPCInferenceServiceStub(channel)
        os.truncate(f"/dev/shm/{memory.name}", 2**21)
        await stub.SystemSharedMemoryRegister(wire.SystemSharedMemoryRegisterRequest(name="r", key=memory.name, byte_size=2**21))
        request = _request()
        _place(request.inputs[0], 2**21)
        code, details = await failure(stub.ModelInfer(request))
        assert (code, "at most 1048576" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        _place(request.inputs[0], 2**17)
        assert (await failure(stub.ModelInfer(request)))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        await stub.ModelInfer(_request())


async def test_wrong_uses_of_shared_memory_are_refused(stub: Any, memory: Memory) -> None:
    await stub.SystemSharedMemoryRegister(_register(memory))
    assert (await failure(stub.SystemSharedMemoryRegister(_register(memory))))[0] is grpc.StatusCode.ALREADY_EXISTS
    changes = {
        "do not lie within": lambda request: _place(request.inputs[0], 32, 4090),
        "has 16 bytes": lambda request: _place(request.inputs[0], 16),
        "takes 32 bytes": lambda request: _place(request.outputs[0], 31),
        "shared_memory_offset": lambda request: (
            request.inputs[0].parameters["shared_memory_offset"].MergeFrom(wire.InferParameter(string_param="4"))
        ),
        "no shared_memory_byte_size": lambda request: request.inputs[0].parameters.pop("shared_memory_byte_size"),
        "both classification and": lambda request: (
            request.outputs[0].parameters["classification"].MergeFrom(wire.InferParameter(int64_param=1))
        ),
        "has both contents": lambda request: request.inputs[0].contents.fp32_contents.append(1),
        "2 raw_input_contents": lambda request: request.raw_input_contents.append(b""),
    }
    for message, change in changes.items():
        request = _request()
        change(request)
        code, details = await failure(stub.ModelInfer(request))
        assert (code, message in details) == (grpc.StatusCode.INVALID_ARGUMENT, True), details
        assert memory.name not in details
