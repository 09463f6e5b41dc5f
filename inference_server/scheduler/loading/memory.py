"""A budget of memory for models: what one is likely to take is known from its files, what it took from the growth of the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from inference_server.engine.devices import usable_memory
from inference_server.errors import MemoryExhausted

# A loaded copy beside its files: weights packed for the processor's instructions, and buffers of a run.
_LIKELY = 2.0
# Share of the machine's memory that models may take where the operator names no number.
_SHARE = 0.8
# Of a GPU's memory: some is the driver's, and some the libraries'.
_GPU_SHARE = 0.9
_MIB = 2**20


class MemoryBudget:
    """Bytes that all loaded models may take, counted from before a model is loaded until its last instance has ended.

    `most_bytes`: 0 for most of what the machine, or its container, has. `used`: bytes that are in use now, by whose growth a model is
    measured; those of this process by default. `setting`: what raises the bound, for who is refused. `of`: whose memory it is.
    """

    def __init__(
        self,
        most_bytes: int = 0,
        *,
        used: Callable[[], int] | None = None,
        setting: str = "INFERENCE_MODEL_MEMORY_BYTES",
        of: str = "",
    ) -> None:
        self.most_bytes = most_bytes or int(usable_memory() * _SHARE)
        self.in_use = used or resident_bytes
        self._setting = setting
        self._of = of
        self._lock = threading.Lock()
        self._held: dict[Holding, int] = {}

    @property
    def used_bytes(self) -> int:
        """What the loaded models take."""
        return sum(self._held.values())

    def hold(self, model: str, files: Path, copies: int) -> Holding:
        """Make room for a model before it is loaded. Raises `MemoryExhausted`."""
        size = sum(entry.stat().st_size for entry in files.rglob("*") if entry.is_file()) * copies
        holding = Holding(self, model, size)
        self.change(holding, int(size * _LIKELY), f"is likely to take {size * _LIKELY / _MIB:.1f} MiB")
        return holding

    def change(self, holding: Holding, size: int, takes: str) -> None:
        """Count a model as so many bytes; one that does not fit is counted no more. Raises `MemoryExhausted`."""
        with self._lock:
            others = self.used_bytes - self._held.pop(holding, 0)
            if others + size > self.most_bytes:
                raise MemoryExhausted(
                    f"model {holding.model} {takes}, and {max(0, self.most_bytes - others) / _MIB:.1f} MiB of the "
                    f"{self.most_bytes / _MIB:.1f} MiB for models are free{self._of}; unload another one or raise {self._setting}"
                )
            self._held[holding] = size

    def release(self, holding: Holding) -> None:
        """Count a model no more."""
        with self._lock:
            self._held.pop(holding, None)


class Holding:
    """What one loaded version takes of the budget."""

    def __init__(self, budget: MemoryBudget, model: str, size: int) -> None:
        self.model = model
        self._budget = budget
        self._size = size
        self._before = budget.in_use()

    def measure(self) -> None:
        """The model is loaded: count what it took, at least the size of its files. Raises `MemoryExhausted`."""
        grown = self._budget.in_use() - self._before
        self._budget.change(self, max(grown, self._size), f"took {max(grown, self._size) / _MIB:.1f} MiB")

    def release(self) -> None:
        """The model is gone."""
        self._budget.release(self)


class Holdings:
    """What one loaded version takes of several budgets: the machine's, and that of each GPU with an instance of it."""

    def __init__(self) -> None:
        self._held: list[Holding] = []

    def hold(self, model: str, files: Path, devices: Sequence[str], *, host: MemoryBudget, gpus: Mapping[str, MemoryBudget]) -> None:
        """Make room for an instance on each of these devices: on the host for each on the CPU, and for one of all those on GPUs.

        Raises `MemoryExhausted`.
        """
        copies = {device: devices.count(device) for device in devices if device in gpus}
        on_host = len(devices) - sum(copies.values()) + bool(copies)
        self._held.append(host.hold(model, files, on_host))
        for device, count in copies.items():
            self._held.append(gpus[device].hold(model, files, count))

    def measure(self) -> None:
        """The model is loaded: count what it took. Raises `MemoryExhausted`."""
        for holding in self._held:
            holding.measure()

    def release(self) -> None:
        """The model is gone."""
        for holding in self._held:
            holding.release()


def gpu_budgets(memories: Mapping[str, Callable[[], tuple[int, int]] | None], most_bytes: int = 0) -> dict[str, MemoryBudget]:
    """The budget of each device that has memory of its own."""
    return {device: gpu_budget(device, memory, most_bytes) for device, memory in memories.items() if memory is not None}


def gpu_budget(device: str, memory: Callable[[], tuple[int, int]], most_bytes: int = 0) -> MemoryBudget:
    """The budget of a GPU. `memory`: its free and total bytes, asked anew; `most_bytes`: 0 for most of it."""

    def used() -> int:
        free, total = memory()
        return total - free

    return MemoryBudget(most_bytes or int(memory()[1] * _GPU_SHARE), used=used, setting="INFERENCE_GPU_MEMORY_BYTES", of=f" on {device}")


def resident_bytes(*, statm: Path = Path("/proc/self/statm")) -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
