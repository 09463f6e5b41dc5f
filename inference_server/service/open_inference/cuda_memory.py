"""Tensors in memory of a GPU: allocations of other processes on this machine, registered by name with a CUDA IPC handle.

Off unless the operator turns it on and there is a GPU. Elements are copied in and out. No error and no status tells a handle.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from inference_server.errors import AlreadyExists, InvalidInput, ModelFailed, NotEnabled, NotFound

# Bytes of a cudaIpcMemHandle_t.
HANDLE_BYTES = 64
_LONGEST_NAME = 256
_LARGEST = 2**63 - 1


class PeerMemory(Protocol):
    """Memory of other processes on the GPUs of this machine; each call may come from any thread, and raises `ModelFailed`."""

    def open(self, handle: bytes, device: int) -> int:
        """The address of the memory of a handle."""

    def size(self, address: int) -> int:
        """Bytes from an address to the end of its allocation."""

    def close(self, address: int, device: int) -> None:
        """Let go of it."""

    def read(self, address: int, target: memoryview, device: int) -> None:
        """Copy into memory of the host; blocks."""

    def write(self, address: int, source: memoryview, device: int) -> None:
        """Copy from memory of the host; blocks."""


@dataclass(frozen=True, kw_only=True)
class CudaRegionFacts:
    """What a region was registered with."""

    name: str
    # Number of the GPU.
    device: int
    # Bytes.
    size: int


class CudaRegion:
    """An allocation of another process; its methods may be called from any thread."""

    def __init__(self, facts: CudaRegionFacts, memory: PeerMemory, address: int) -> None:
        """Owns the opened handle."""
        self.facts = facts
        self._memory = memory
        self._address = address
        self._lock = threading.Lock()
        self._open = True

    def check(self, offset: int, size: int) -> None:
        """Raises `InvalidInput` for a part that does not lie within the region."""
        if not (0 <= offset <= self.facts.size and 0 <= size <= self.facts.size - offset):
            raise InvalidInput(
                f"{size} bytes at offset {offset} do not lie within the CUDA shared memory region {self.facts.name} of "
                f"{self.facts.size} bytes."
            )

    def read(self, offset: int, size: int) -> memoryview:
        """A copy of a part. Raises `InvalidInput` when it does not lie within the region, or can no longer be read."""
        self.check(offset, size)
        content = memoryview(bytearray(size))
        if size:
            with self._lock:
                self._usable()
                try:
                    self._memory.read(self._address + offset, content, self.facts.device)
                except ModelFailed as error:
                    raise self._lost() from error
        return content

    def write(self, offset: int, content: bytes | memoryview) -> None:
        """Overwrite a part; raises as `read` does."""
        view = memoryview(content).cast("B")
        self.check(offset, len(view))
        if len(view):
            with self._lock:
                self._usable()
                try:
                    self._memory.write(self._address + offset, view, self.facts.device)
                except ModelFailed as error:
                    raise self._lost() from error

    def close(self) -> None:
        """Let go of the memory; a second call does nothing."""
        with self._lock:
            if self._open:
                self._memory.close(self._address, self.facts.device)
            self._open = False

    def _usable(self) -> None:
        if not self._open:
            raise InvalidInput(f"the CUDA shared memory region {self.facts.name} was unregistered while a request used it.")

    def _lost(self) -> InvalidInput:
        return InvalidInput(f"the CUDA shared memory region {self.facts.name} cannot be reached any more; register it anew.")


class CudaMemory:
    """The registered regions.

    `memory`: None refuses everything, with `reason`. `devices`: numbers of the GPUs that regions may lie on.
    """

    def __init__(
        self, memory: PeerMemory | None = None, *, devices: tuple[int, ...] = (), reason: str = "", most_regions: int = 1024
    ) -> None:
        self._memory = memory
        self._devices = devices
        self._reason = reason or "the server has no GPU"
        self._most_regions = most_regions
        self._regions: dict[str, CudaRegion] = {}
        self._lock = threading.Lock()

    @property
    def enabled(self) -> bool:
        """Whether regions can be registered."""
        return self._memory is not None

    def register(self, name: str, handle: bytes, *, device: int, size: int) -> None:
        """Make a region known; blocks.

        Raises `NotEnabled`, `AlreadyExists`, `NotFound` when the handle leads to no memory, and `InvalidInput` for a name, handle,
        device or size that cannot be.
        """
        memory = self._enabled()
        with self._lock:
            self._check(name, handle, device, size)
            self._regions[name] = self._opened(memory, CudaRegionFacts(name=name, device=device, size=size), handle)

    def _opened(self, memory: PeerMemory, facts: CudaRegionFacts, handle: bytes) -> CudaRegion:
        name, device = facts.name, facts.device
        try:
            address = memory.open(handle, device)
        except ModelFailed as error:
            raise NotFound(
                f"the memory of the CUDA shared memory region {name} cannot be opened; its process must run on this machine, be another "
                f"than the server's, and have it allocated on GPU {device} still."
            ) from error
        try:
            room = memory.size(address)
        except ModelFailed as error:
            memory.close(address, device)
            raise NotFound(f"the memory of the CUDA shared memory region {name} cannot be measured; allocate it anew.") from error
        if facts.size > room:
            memory.close(address, device)
            raise InvalidInput(f"the CUDA shared memory region {name} reaches beyond the end of its allocation; make one larger.")
        return CudaRegion(facts, memory, address)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all of them; one that is not known is forgotten already. Blocks."""
        for each in [name] if name else list(self._regions):
            region = self._regions.pop(each, None)
            if region is not None:
                region.close()

    def status(self, name: str = "") -> Mapping[str, CudaRegionFacts]:
        """What is registered, one region or all of them. Raises `NotEnabled` or `NotFound`."""
        if not name:
            return {each: region.facts for each, region in list(self._regions.items())}
        self._enabled()
        region = self.find(name)
        if region is None:
            raise NotFound(f"there is no CUDA shared memory region {name}; register it first.")
        return {name: region.facts}

    def find(self, name: str) -> CudaRegion | None:
        """A registered region, if there is one so called."""
        return self._regions.get(name)

    def _enabled(self) -> PeerMemory:
        if self._memory is None:
            raise NotEnabled(
                f"CUDA shared memory is not offered: {self._reason}; send tensors in the messages, or use system shared memory."
            )
        return self._memory

    def _check(self, name: str, handle: bytes, device: int, size: int) -> None:
        if not 1 <= len(name) <= _LONGEST_NAME:
            raise InvalidInput(f"the name of a CUDA shared memory region has 1 to {_LONGEST_NAME} characters.")
        if name in self._regions:
            raise AlreadyExists(f"a CUDA shared memory region {name} is registered already; unregister it, or take another name.")
        if len(self._regions) >= self._most_regions:
            raise InvalidInput(f"{self._most_regions} CUDA shared memory regions are registered, which is the limit; unregister some.")
        if len(handle) != HANDLE_BYTES:
            raise InvalidInput(f"the raw_handle of the CUDA shared memory region {name} has {len(handle)} bytes; expected {HANDLE_BYTES}.")
        if device not in self._devices:
            raise InvalidInput(f"the CUDA shared memory region {name} is on GPU {device}; expected one of {list(self._devices)}.")
        if not 1 <= size <= _LARGEST:
            raise InvalidInput(f"the CUDA shared memory region {name} has no size, or one beyond any allocation.")


class SharedRegions:
    """Regions of either kind by name, for requests; a name is of one kind only."""

    def __init__(self, system: SystemRegions, cuda: CudaMemory) -> None:
        self._system = system
        self._cuda = cuda

    def region(self, name: str) -> AnyRegion:
        """A registered region. Raises `NotEnabled` or `NotFound`."""
        return self._cuda.find(name) or self._system.region(name)


class AnyRegion(Protocol):
    """A region of either kind."""

    def check(self, offset: int, size: int) -> None:
        """Raises `InvalidInput` for a part that does not lie within the region."""

    def read(self, offset: int, size: int) -> memoryview:
        """A copy of a part."""

    def write(self, offset: int, content: bytes | memoryview) -> None:
        """Overwrite a part."""


class SystemRegions(Protocol):
    """Regions of system shared memory."""

    def region(self, name: str) -> AnyRegion:
        """A registered region. Raises `NotEnabled` or `NotFound`."""
