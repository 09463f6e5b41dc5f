"""Memory, streams and graphs of an NVIDIA GPU, through NVIDIA's own bindings of the CUDA runtime (the package cuda-bindings).

Addresses are numbers, as the runtimes take them. What is allocated is let go when the object that stands for it is.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.failures import failure_on_device
from inference_server.errors import ConfigurationError, ModelFailed

Bytes = NDArray[np.uint8]


class DeviceBuffer(Protocol):
    """Memory of the device, let go with the object."""

    @property
    def address(self) -> int:
        """Where it begins, in the device's addresses."""

    @property
    def size(self) -> int:
        """Its bytes."""


class Graph(Protocol):
    """Work that was recorded once and is launched whole."""

    def launch(self) -> None:
        """Queue the work on the stream that it was recorded on."""


class Stream(Protocol):
    """A queue of work of the device; called from one thread at a time."""

    @property
    def handle(self) -> int:
        """As runtimes take it."""

    def to_device(self, address: int, source: Bytes) -> None:
        """Queue a copy from page-locked memory, which stays as it is until `synchronize`."""

    def to_host(self, target: Bytes, address: int) -> None:
        """Queue a copy into page-locked memory."""

    def synchronize(self) -> float:
        """Wait for all that was queued; seconds that the device took for it since the last call, waits of the queue included."""

    def record(self, work: Callable[[], None]) -> Graph:
        """Record what `work` queues, without running it."""


class Device(Protocol):
    """A GPU."""

    def allocate(self, size: int) -> DeviceBuffer:
        """Memory of the device. Raises `DeviceFailed` when there is not so much."""

    def pinned(self, size: int) -> Bytes:
        """Page-locked memory of the host, from which copies run beside computation."""

    def stream(self) -> Stream:
        """A new stream, which waits for no other."""

    def memory(self) -> tuple[int, int]:
        """Free and total bytes."""

    def activate(self) -> None:
        """Make it the calling thread's device, for libraries that ask."""


class CudaDevice:
    """A GPU by its number: fulfils `Device`. Raises `ConfigurationError` when the bindings or the driver are not there."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._runtime = _runtime()
        self.activate()

    def activate(self) -> None:
        """The device is each thread's own setting."""
        _call(self._runtime.cudaSetDevice(self._number))

    def allocate(self, size: int) -> DeviceBuffer:
        """See `Device`."""
        self.activate()
        (address,) = _call(self._runtime.cudaMalloc(max(1, size)))
        return _Buffer(int(address), size, _freeing(self._runtime.cudaFree, int(address)))

    def pinned(self, size: int) -> Bytes:
        """See `Device`."""
        self.activate()
        (address,) = _call(self._runtime.cudaHostAlloc(max(1, size), self._runtime.cudaHostAllocDefault))
        memory = (ctypes.c_uint8 * max(1, size)).from_address(int(address))
        weakref.finalize(memory, _freeing(self._runtime.cudaFreeHost, int(address)))
        view: Bytes = np.ctypeslib.as_array(memory)
        return view[:size]

    def stream(self) -> Stream:
        """See `Device`."""
        self.activate()
        return _CudaStream(self._runtime)

    def memory(self) -> tuple[int, int]:
        """See `Device`."""
        self.activate()
        free, total = _call(self._runtime.cudaMemGetInfo())
        return int(free), int(total)

    def compute_capability(self) -> str:
        """Of the device, such as 9.0: engines built for one run on no other."""
        kind = self._runtime.cudaDeviceAttr
        parts = (kind.cudaDevAttrComputeCapabilityMajor, kind.cudaDevAttrComputeCapabilityMinor)
        return ".".join(str(int(_call(self._runtime.cudaDeviceGetAttribute(part, self._number))[0])) for part in parts)


class _Buffer:
    def __init__(self, address: int, size: int, free: Callable[[], None]) -> None:
        self.address = address
        self.size = size
        weakref.finalize(self, free)


class _CudaStream:
    """A stream with two events that time what runs on it."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        (self._stream,) = _call(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        (self._begun,) = _call(runtime.cudaEventCreate())
        (self._ended,) = _call(runtime.cudaEventCreate())
        self._timing = False
        self.handle = int(self._stream)
        weakref.finalize(self, _destroy_stream, runtime, self._stream, self._begun, self._ended)

    def to_device(self, address: int, source: Bytes) -> None:
        """See `Stream`."""
        self._begin()
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _call(self._runtime.cudaMemcpyAsync(address, source.ctypes.data, source.nbytes, kind, self._stream))

    def to_host(self, target: Bytes, address: int) -> None:
        """See `Stream`."""
        self._begin()
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _call(self._runtime.cudaMemcpyAsync(target.ctypes.data, address, target.nbytes, kind, self._stream))

    def synchronize(self) -> float:
        """See `Stream`. The bindings release the interpreter lock while they wait."""
        if self._timing:
            _call(self._runtime.cudaEventRecord(self._ended, self._stream))
        _call(self._runtime.cudaStreamSynchronize(self._stream))
        if not self._timing:
            return 0.0
        self._timing = False
        (milliseconds,) = _call(self._runtime.cudaEventElapsedTime(self._begun, self._ended))
        return float(milliseconds) / 1000

    def record(self, work: Callable[[], None]) -> Graph:
        """See `Stream`. Only this thread's work is recorded, so that other instances go on."""
        runtime = self._runtime
        _call(runtime.cudaStreamBeginCapture(self._stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
        try:
            work()
        finally:
            (graph,) = _call(runtime.cudaStreamEndCapture(self._stream))
        try:
            (executable,) = _call(runtime.cudaGraphInstantiate(graph, 0))
        finally:
            runtime.cudaGraphDestroy(graph)
        return _CudaGraph(runtime, executable, self._stream)

    def _begin(self) -> None:
        if not self._timing:
            _call(self._runtime.cudaEventRecord(self._begun, self._stream))
            self._timing = True


class _CudaGraph:
    def __init__(self, runtime: Any, executable: Any, stream: Any) -> None:
        self._runtime = runtime
        self._executable = executable
        self._stream = stream
        weakref.finalize(self, runtime.cudaGraphExecDestroy, executable)

    def launch(self) -> None:
        """See `Graph`."""
        _call(self._runtime.cudaGraphLaunch(self._executable, self._stream))


class PeerMemory:
    """Memory that another process allocated on a GPU and told the handle of (CUDA IPC): fulfils the service's `PeerMemory`.

    No error tells a handle. A process cannot open its own handles: CUDA has it so.
    """

    def open(self, handle: bytes, device: int) -> int:
        """The address of the memory of a handle of 64 bytes. Raises `ModelFailed` when there is none such."""
        runtime = _runtime()
        _call(runtime.cudaSetDevice(device))
        told = runtime.cudaIpcMemHandle_t()
        ctypes.memmove(told.getPtr(), handle, len(handle))
        (address,) = _call(runtime.cudaIpcOpenMemHandle(told, runtime.cudaIpcMemLazyEnablePeerAccess))
        return int(address)

    def size(self, address: int) -> int:
        """Bytes from an address to the end of its allocation."""
        from cuda.bindings import driver

        try:
            error, base, size = driver.cuMemGetAddressRange(driver.CUdeviceptr(address))
        except RuntimeError as failure:  # there is no driver
            raise ModelFailed("the size of the memory of the handle cannot be had") from failure
        if int(error):
            raise ModelFailed("the size of the memory of the handle cannot be had")
        return int(base) + int(size) - address

    def close(self, address: int, device: int) -> None:
        """Let go of it."""
        runtime = _runtime()
        runtime.cudaSetDevice(device)
        runtime.cudaIpcCloseMemHandle(address)

    def read(self, address: int, target: memoryview, device: int) -> None:
        """Copy into memory of the host, which may be of any kind; blocks."""
        self._copy(np.frombuffer(target, np.uint8).ctypes.data, address, len(target), "cudaMemcpyDeviceToHost", device)

    def write(self, address: int, source: memoryview, device: int) -> None:
        """Copy from memory of the host; blocks."""
        self._copy(address, np.frombuffer(source, np.uint8).ctypes.data, len(source), "cudaMemcpyHostToDevice", device)

    def _copy(self, target: int, source: int, size: int, kind: str, device: int) -> None:
        runtime = _runtime()
        _call(runtime.cudaSetDevice(device))
        _call(runtime.cudaMemcpy(target, source, size, getattr(runtime.cudaMemcpyKind, kind)))


def _freeing(free: Callable[[int], Any], address: int) -> Callable[[], None]:
    """A call that frees and never raises: at the end of the process the driver may be gone."""

    def run() -> None:
        free(address)

    return run


def _destroy_stream(runtime: Any, stream: Any, *events: Any) -> None:
    runtime.cudaStreamSynchronize(stream)
    for event in events:
        runtime.cudaEventDestroy(event)
    runtime.cudaStreamDestroy(stream)


def _runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise ConfigurationError("the package cuda-bindings is not installed; install the extra `gpu` (lamina[gpu])") from error
    return runtime


def _call(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call of the bindings answered, without its status. Raises `ModelFailed`, or `DeviceFailed` where that says more."""
    status, *values = result
    if int(status):
        runtime = _runtime()
        name, text = (cast(bytes, ask(status)[1]).decode() for ask in (runtime.cudaGetErrorName, runtime.cudaGetErrorString))
        raise failure_on_device(f"the GPU failed: {text} ({name})", name)
    return tuple(values)
