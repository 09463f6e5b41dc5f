"""A GPU whose memory is numpy's: fulfils `cuda.Device`. What is queued happens at `synchronize` and no sooner, as on a real one."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np

from inference_server.engine.cuda import Bytes
from inference_server.errors import DeviceFailed

_ALIGNMENT = 256
Work = Callable[[], None]


class FakeDevice:
    """`total`: bytes of its memory."""

    def __init__(self, total: int = 2**30) -> None:
        self.total = total
        self.allocations = 0
        self.streams: dict[int, FakeStream] = {}
        self._next = _ALIGNMENT
        self._memory: dict[int, Bytes] = {}
        self._pinned: dict[int, int] = {}

    @property
    def live_bytes(self) -> int:
        """Allocated and not let go of."""
        return sum(block.nbytes for block in self._memory.values())

    def allocate(self, size: int) -> FakeBuffer:
        if self.live_bytes + size > self.total:
            raise DeviceFailed("the GPU failed: out of memory", cause="out_of_memory")
        self.allocations += 1
        address = self._next
        self._memory[address] = np.full(size, 0xCD, np.uint8)
        self._next += (size // _ALIGNMENT + 2) * _ALIGNMENT
        buffer = FakeBuffer(address, size)
        weakref.finalize(buffer, self._memory.pop, address)
        return buffer

    def pinned(self, size: int) -> Bytes:
        memory = np.full(size, 0xAB, np.uint8)
        self._pinned[memory.ctypes.data] = size
        return memory

    def stream(self) -> FakeStream:
        stream = FakeStream(self, len(self.streams) + 1)
        self.streams[stream.handle] = stream
        return stream

    def memory(self) -> tuple[int, int]:
        return self.total - self.live_bytes, self.total

    def activate(self) -> None:
        """There is one device."""

    def at(self, address: int, size: int) -> Bytes:
        """The bytes at an address; a part that lies in no allocation is a defect of the caller."""
        base = max((start for start in self._memory if start <= address), default=-1)
        assert base >= 0, "no memory is allocated there"
        assert address - base + size <= self._memory[base].nbytes, "the part reaches beyond its allocation"
        return self._memory[base][address - base : address - base + size]

    def is_pinned(self, memory: Bytes) -> bool:
        start = memory.ctypes.data
        return any(base <= start and start + memory.nbytes <= base + size for base, size in self._pinned.items())


class FakeBuffer:
    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.size = size


class FakeStream:
    """`launched`: graphs that were launched; `recorded`: graphs that were recorded."""

    def __init__(self, device: FakeDevice, handle: int) -> None:
        self.handle = handle
        self.recorded = 0
        self.launched = 0
        self.unpinned = 0
        self._device = device
        self._queue: list[Work] = []
        self._recording: list[Work] | None = None

    def push(self, work: Work) -> None:
        (self._queue if self._recording is None else self._recording).append(work)

    def to_device(self, address: int, source: Bytes) -> None:
        self.unpinned += not self._device.is_pinned(source)
        self.push(lambda: self._copy(self._device.at(address, source.nbytes), source))

    def to_host(self, target: Bytes, address: int) -> None:
        self.unpinned += not self._device.is_pinned(target)
        self.push(lambda: self._copy(target, self._device.at(address, target.nbytes)))

    def synchronize(self) -> float:
        assert self._recording is None, "a stream that is recorded cannot be waited for"
        queue, self._queue = self._queue, []
        for work in queue:
            work()
        return 0.001 * bool(queue)

    def record(self, work: Work) -> FakeGraph:
        self._recording = []
        try:
            work()
        finally:
            recorded, self._recording = self._recording, None
        self.recorded += 1
        return FakeGraph(self, recorded)

    @staticmethod
    def _copy(target: Bytes, source: Bytes) -> None:
        target[...] = source


class FakeGraph:
    def __init__(self, stream: FakeStream, recorded: list[Work]) -> None:
        self._stream = stream
        self._recorded = recorded

    def launch(self) -> None:
        self._stream.launched += 1
        for work in self._recorded:
            self._stream.push(work)
