"""The module cuda.bindings.runtime over the host's memory: calls answer (status, values…), and take as many arguments as the real ones."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

ARGUMENTS: dict[str, int] = json.loads((Path(__file__).parent / "cuda_runtime_names.json").read_text())["arguments"]
_OK, _OUT_OF_MEMORY, _INVALID_HANDLE = 0, 2, 400
_NAMES = {
    _OUT_OF_MEMORY: (b"cudaErrorMemoryAllocation", b"out of memory"),
    _INVALID_HANDLE: (b"cudaErrorInvalidResourceHandle", b"invalid"),
}
Kind = IntEnum("Kind", "cudaMemcpyHostToDevice cudaMemcpyDeviceToHost")
Mode = IntEnum("Mode", "cudaStreamCaptureModeThreadLocal")
Attribute = IntEnum("Attribute", "cudaDevAttrComputeCapabilityMajor cudaDevAttrComputeCapabilityMinor")


class IpcHandle:
    def __init__(self) -> None:
        self.content = ctypes.create_string_buffer(64)

    def getPtr(self) -> int:  # noqa: N802
        return ctypes.addressof(self.content)


class FakeCudaRuntime:
    """`live`: what was allocated and not let go of, by address. `total`: bytes of the device. `shared`: memory by handle."""

    cudaMemcpyKind = Kind  # noqa: N815
    cudaStreamCaptureMode = Mode  # noqa: N815
    cudaDeviceAttr = Attribute  # noqa: N815
    cudaHostAllocDefault = 0  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaIpcMemLazyEnablePeerAccess = 1  # noqa: N815
    cudaIpcMemHandle_t = IpcHandle  # noqa: N815

    def __init__(self, total: int = 2**20) -> None:
        self.total = total
        self.live: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.shared: dict[bytes, int] = {}
        self.destroyed: list[str] = []
        self._queue: list[Callable[[], object]] = []
        self._recording: list[Callable[[], object]] | None = None
        self._handles = 0

    def __getattr__(self, name: str) -> Any:
        work = type(self).__dict__.get(f"_{name}")
        if work is None:
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            assert len(arguments) == ARGUMENTS[name], f"{name} takes {ARGUMENTS[name]} arguments"
            told = work(self, *arguments)
            return told if isinstance(told, tuple) else (_OK,) if told is None else (_OK, told)

        return call

    def _cudaSetDevice(self, device: int) -> None: ...  # noqa: N802

    def _cudaMalloc(self, size: int) -> Any:  # noqa: N802
        if size > self.total:
            return (_OUT_OF_MEMORY, None)
        return self._allocated(self.live, size)

    def _cudaFree(self, address: int) -> None:  # noqa: N802
        del self.live[address]

    def _cudaHostAlloc(self, size: int, flags: int) -> Any:  # noqa: N802
        return self._allocated(self.pinned, size)

    def _cudaFreeHost(self, address: int) -> None:  # noqa: N802
        del self.pinned[address]

    def _cudaMemGetInfo(self) -> Any:  # noqa: N802
        return (_OK, self.total - sum(map(ctypes.sizeof, self.live.values())), self.total)

    def _cudaDeviceGetAttribute(self, attribute: Attribute, device: int) -> int:  # noqa: N802
        return 9 if attribute is Attribute.cudaDevAttrComputeCapabilityMajor else 0

    def _cudaStreamCreateWithFlags(self, flags: int) -> int:  # noqa: N802
        return self._handle()

    def _cudaStreamDestroy(self, stream: int) -> None:  # noqa: N802
        self.destroyed.append("stream")

    def _cudaEventCreate(self) -> int:  # noqa: N802
        return self._handle()

    def _cudaEventDestroy(self, event: int) -> None:  # noqa: N802
        self.destroyed.append("event")

    def _cudaEventRecord(self, event: int, stream: int) -> None: ...  # noqa: N802

    def _cudaEventElapsedTime(self, begun: int, ended: int) -> float:  # noqa: N802
        return 2.5

    def _cudaMemcpyAsync(self, target: int, source: int, size: int, kind: Kind, stream: int) -> None:  # noqa: N802
        (self._queue if self._recording is None else self._recording).append(lambda: ctypes.memmove(target, source, size))

    def _cudaMemcpy(self, target: int, source: int, size: int, kind: Kind) -> None:  # noqa: N802
        ctypes.memmove(target, source, size)

    def _cudaStreamSynchronize(self, stream: int) -> None:  # noqa: N802
        queue, self._queue = self._queue, []
        for work in queue:
            work()

    def _cudaStreamBeginCapture(self, stream: int, mode: Mode) -> None:  # noqa: N802
        self._recording = []

    def _cudaStreamEndCapture(self, stream: int) -> Any:  # noqa: N802
        recorded, self._recording = self._recording, None
        return (_OK, recorded)

    def _cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:  # noqa: N802
        return (_OK, list(graph))

    def _cudaGraphDestroy(self, graph: Any) -> None:  # noqa: N802
        self.destroyed.append("graph")

    def _cudaGraphExecDestroy(self, executable: Any) -> None:  # noqa: N802
        self.destroyed.append("executable")

    def _cudaGraphLaunch(self, executable: Any, stream: int) -> None:  # noqa: N802
        self._queue.extend(executable)

    def _cudaIpcOpenMemHandle(self, handle: IpcHandle, flags: int) -> Any:  # noqa: N802
        address = self.shared.get(handle.content.raw)
        return (_INVALID_HANDLE, None) if address is None else address

    def _cudaIpcCloseMemHandle(self, address: int) -> None:  # noqa: N802
        self.destroyed.append("handle")

    def _cudaGetErrorName(self, status: int) -> Any:  # noqa: N802
        return (_OK, _NAMES[status][0])

    def _cudaGetErrorString(self, status: int) -> Any:  # noqa: N802
        return (_OK, _NAMES[status][1])

    def _handle(self) -> int:
        self._handles += 1
        return self._handles

    def _allocated(self, kept: dict[int, Any], size: int) -> int:
        memory = (ctypes.c_uint8 * size)()
        kept[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)
