"""What NVIDIA's management library (NVML) tells of the GPUs. Alone in importing pynvml."""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any

import structlog

_SECONDS = 1.0
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class GpuReading:
    """One look at a GPU."""

    # As a setting names it: cuda:0.
    device: str
    # As its maker names it.
    name: str
    # Bytes, of all processes.
    memory_used: int
    memory_total: int
    # Share of the last moments in which it computed, 0 to 1.
    utilisation: float


class GpuMonitor:
    """Reads the GPUs that a server runs on; none where the library is not there, which is told once.

    `devices`: as settings name them. CUDA's numbers are the driver's unless CUDA_VISIBLE_DEVICES or CUDA_DEVICE_ORDER change them, so the
    handles are found by the PCI addresses that CUDA tells.
    """

    def __init__(self, devices: tuple[str, ...]) -> None:
        self._library: Any = None
        self._handles: dict[str, Any] = {}
        self._last: tuple[GpuReading, ...] = ()
        for device in devices:
            if device.startswith("cuda:"):
                self._open(device)
        if self._handles:
            self._look()
            threading.Thread(target=_keep_looking, args=(weakref.ref(self),), name="gpu-monitor", daemon=True).start()

    def readings(self) -> tuple[GpuReading, ...]:
        """The last look at each, at most a second old; one that cannot be read is left out."""
        return self._last

    def _look(self) -> None:
        found = (self._reading(device, handle) for device, handle in self._handles.items())
        self._last = tuple(reading for reading in found if reading is not None)

    def _open(self, device: str) -> None:
        try:
            import pynvml
        except ImportError:
            _log.warning("gpu_not_monitored", device=device, reason="the package nvidia-ml-py is not installed")
            return
        try:
            pynvml.nvmlInit()
            self._handles[device] = pynvml.nvmlDeviceGetHandleByPciBusId(_pci_address(int(device.removeprefix("cuda:"))))
            self._library = pynvml
        except (pynvml.NVMLError, RuntimeError) as error:
            _log.warning("gpu_not_monitored", device=device, reason=str(error))

    def _reading(self, device: str, handle: Any) -> GpuReading | None:
        library = self._library
        try:
            memory, name = library.nvmlDeviceGetMemoryInfo(handle), library.nvmlDeviceGetName(handle)
            busy = library.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        except library.NVMLError as error:
            _log.warning("gpu_cannot_be_read", device=device, reason=str(error))
            return None
        return GpuReading(
            device=device,
            name=name if isinstance(name, str) else name.decode(),
            memory_used=int(memory.used),
            memory_total=int(memory.total),
            utilisation=busy,
        )


def _keep_looking(monitor: weakref.ref[GpuMonitor]) -> None:
    """The driver may take its time: whoever asks must not wait for it. Ends with its monitor."""
    while (there := monitor()) is not None:
        there._look()
        del there
        time.sleep(_SECONDS)


def _pci_address(number: int) -> bytes:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise RuntimeError("the package cuda-bindings is not installed") from error
    status, address = runtime.cudaDeviceGetPCIBusId(32, number)
    if int(status):
        raise RuntimeError(f"CUDA does not tell the address of GPU {number}")
    return bytes(address).rstrip(b"\0")
