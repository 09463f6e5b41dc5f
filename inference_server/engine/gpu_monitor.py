"""What NVIDIA's management library (NVML) tells of the GPUs. Alone in importing pynvml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog

_log = structlog.get_logger(__name__)


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
        for device in devices:
            if device.startswith("cuda:"):
                self._open(device)

    def readings(self) -> tuple[GpuReading, ...]:
        """A look at each; one that cannot be read now is left out."""
        found = (self._reading(device, handle) for device, handle in self._handles.items())
        return tuple(reading for reading in found if reading is not None)

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


def _pci_address(number: int) -> bytes:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise RuntimeError("the package cuda-bindings is not installed") from error
    status, address = runtime.cudaDeviceGetPCIBusId(32, number)
    if int(status):
        raise RuntimeError(f"CUDA does not tell the address of GPU {number}")
    return bytes(address).rstrip(b"\0")
