"""Memory, streams and graphs of a GPU, over a fake of the bindings that takes as many arguments as the real ones."""

from __future__ import annotations

import ctypes
import gc
from functools import partial

import numpy as np
import pytest

from inference_server.engine import cuda
from inference_server.engine.cuda import CudaDevice, PeerMemory
from inference_server.errors import DeviceFailed, ModelFailed
from tests.support.gpu.fake_cuda_runtime import FakeCudaRuntime


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeCudaRuntime:
    fake = FakeCudaRuntime()
    monkeypatch.setattr(cuda, "_runtime", lambda: fake)
    return fake


def test_memory_goes_with_the_object_that_stands_for_it(runtime: FakeCudaRuntime) -> None:
    device = CudaDevice(0)
    buffer, host = device.allocate(1000), device.pinned(100)
    host[:] = 7
    assert (1000, 2**20 - 1000, 100) == (buffer.size, device.memory()[0], host.nbytes)
    part = host[10:20]
    del buffer, host
    gc.collect()
    assert ({}, 1) == (runtime.live, len(runtime.pinned))
    assert 70 == part.sum()
    del part
    gc.collect()
    assert {} == runtime.pinned


def test_a_device_without_room_is_told_as_such(runtime: FakeCudaRuntime) -> None:
    with pytest.raises(DeviceFailed, match=r"the GPU failed: out of memory \(cudaErrorMemoryAllocation\)") as caught:
        CudaDevice(0).allocate(2**30)
    assert "out_of_memory" == caught.value.cause


def test_what_is_queued_is_done_when_it_is_waited_for_and_its_time_is_told(runtime: FakeCudaRuntime) -> None:
    device = CudaDevice(0)
    stream, buffer = device.stream(), device.allocate(8)
    given, taken = device.pinned(8), device.pinned(8)
    given[:] = range(8)
    taken[:] = 0
    stream.to_device(buffer.address, given)
    stream.to_host(taken, buffer.address)
    assert 0 == taken.sum()
    assert (0.0025, list(range(8)), 0.0) == (stream.synchronize(), taken.tolist(), stream.synchronize())


def test_a_graph_does_again_what_was_recorded_and_nothing_is_done_while_it_is(runtime: FakeCudaRuntime) -> None:
    device = CudaDevice(0)
    stream, buffer, given, taken = device.stream(), device.allocate(4), device.pinned(4), device.pinned(4)
    stream.to_device(buffer.address, given)
    given[:] = 1
    taken[:] = 0
    stream.synchronize()
    graph = stream.record(partial(stream.to_host, taken, buffer.address))
    stream.synchronize()
    assert 0 == taken.sum()
    for value in (2, 3):
        given[:] = value
        stream.to_device(buffer.address, given)
        graph.launch()
        stream.synchronize()
        assert 4 * value == taken.sum()
    del graph, stream
    gc.collect()
    assert ["event", "event", "executable", "graph", "stream"] == sorted(runtime.destroyed)


def test_a_recording_that_fails_leaves_the_stream_usable(runtime: FakeCudaRuntime) -> None:
    device = CudaDevice(0)
    stream, buffer, host = device.stream(), device.allocate(4), device.pinned(4)

    def fail() -> None:
        raise ModelFailed("no")

    with pytest.raises(ModelFailed, match="no"):
        stream.record(fail)
    stream.to_device(buffer.address, host)
    assert 0.0025 == stream.synchronize()


def test_the_compute_capability_is_told(runtime: FakeCudaRuntime) -> None:
    assert "9.0" == CudaDevice(0).compute_capability()


def test_memory_of_another_process_is_read_and_written_by_its_handle(runtime: FakeCudaRuntime) -> None:
    memory = ctypes.create_string_buffer(b"abcdefgh", 8)
    runtime.shared[b"handle".ljust(64, b"\0")] = ctypes.addressof(memory)
    peer = PeerMemory()
    address = peer.open(b"handle".ljust(64, b"\0"), 0)
    content = memoryview(bytearray(3))
    peer.read(address + 2, content, 0)
    peer.write(address, memoryview(b"xy"), 0)
    peer.close(address, 0)
    assert (b"cde", b"xycdefgh", ["handle"]) == (bytes(content), memory.raw, runtime.destroyed)
    with pytest.raises(ModelFailed) as caught:
        peer.open(b"other".ljust(64, b"\0"), 0)
    assert "other" not in str(caught.value)


def test_pinned_memory_holds_any_type(runtime: FakeCudaRuntime) -> None:
    host = CudaDevice(0).pinned(16)
    view = host.view(np.float32).reshape(2, 2)
    view[...] = [[1, 2], [3, 4]]
    assert [1, 2, 3, 4] == host.view(np.float32).tolist()
