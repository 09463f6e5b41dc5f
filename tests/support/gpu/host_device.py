"""The host's own memory as a device: fulfils `cuda.Device` with addresses that a real runtime on the CPU may use."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from inference_server.engine.cuda import Bytes
from tests.support.gpu.fake_device import FakeDevice, FakeGraph


class HostDevice:
    """`allocations`: how often memory was asked for."""

    def __init__(self) -> None:
        self.allocations = 0
        self.streams: list[HostStream] = []
        self._fake = FakeDevice()

    def allocate(self, size: int) -> HostBuffer:
        self.allocations += 1
        return HostBuffer(size)

    def pinned(self, size: int) -> Bytes:
        return self._fake.pinned(size)

    def is_pinned(self, memory: Bytes) -> bool:
        return self._fake.is_pinned(memory)

    def stream(self) -> HostStream:
        self.streams.append(HostStream(self))
        return self.streams[-1]

    def memory(self) -> tuple[int, int]:
        return 2**30, 2**30

    def activate(self) -> None:
        """There is one device."""


class HostBuffer:
    def __init__(self, size: int) -> None:
        self.size = size
        self._content = np.full(size, 0xCD, np.uint8)
        self.address = self._content.ctypes.data


class HostStream:
    """Copies at `synchronize` and no sooner. `pageable`: copies of memory that was not page-locked."""

    handle = 1

    def __init__(self, device: HostDevice) -> None:
        self.pageable = 0
        self._device = device
        self._queue: list[Callable[[], object]] = []

    def to_device(self, address: int, source: Bytes) -> None:
        self.pageable += not self._device.is_pinned(source)
        self._queue.append(lambda: ctypes.memmove(address, source.ctypes.data, source.nbytes))

    def to_host(self, target: Bytes, address: int) -> None:
        self.pageable += not self._device.is_pinned(target)
        self._queue.append(lambda: ctypes.memmove(target.ctypes.data, address, target.nbytes))

    def synchronize(self) -> float:
        queue, self._queue = self._queue, []
        for work in queue:
            work()
        return 0.0

    def record(self, work: Callable[[], None]) -> FakeGraph:
        raise AssertionError("ONNX Runtime records its graphs itself")
