"""Memory that other processes allocated on a GPU: fulfils `cuda_memory.PeerMemory`, with numpy's memory for the device's."""

from __future__ import annotations

import numpy as np

from inference_server.errors import DeviceFailed, ModelFailed


class FakePeerMemory:
    """`allocations`: memory by handle. `opened`: addresses that are open. `lost`: whether copies fail."""

    def __init__(self, **sizes: int) -> None:
        self.allocations = {name.encode().ljust(64, b"\0"): np.zeros(size, np.uint8) for name, size in sizes.items()}
        self.opened: dict[int, bytes] = {}
        self.lost = False
        self._next = 4096

    def handle(self, name: str) -> bytes:
        return name.encode().ljust(64, b"\0")

    def open(self, handle: bytes, device: int) -> int:
        if handle not in self.allocations:
            raise ModelFailed("the GPU failed: invalid resource handle (cudaErrorInvalidResourceHandle)")
        address = self._next
        self._next += 2**20
        self.opened[address] = handle
        return address

    def size(self, address: int) -> int:
        return self.allocations[self.opened[address]].nbytes

    def close(self, address: int, device: int) -> None:
        del self.opened[address]

    def read(self, address: int, target: memoryview, device: int) -> None:
        np.frombuffer(target, np.uint8)[...] = self._part(address, len(target))

    def write(self, address: int, source: memoryview, device: int) -> None:
        self._part(address, len(source))[...] = np.frombuffer(source, np.uint8)

    def _part(self, address: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        if self.lost:
            raise DeviceFailed("the GPU failed: an illegal memory access was encountered", cause="device_lost")
        base = max(start for start in self.opened if start <= address)
        memory = self.allocations[self.opened[base]][address - base :]
        assert size <= memory.nbytes, "the part reaches beyond its allocation"
        return memory[:size]
