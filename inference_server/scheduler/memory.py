"""A budget of memory for models: what one is likely to take is known from its files, what it took from the growth of the process."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from inference_server.engine.devices import usable_memory
from inference_server.errors import MemoryExhausted

# A loaded copy beside its files: weights packed for the processor's instructions, and buffers of a run.
_LIKELY = 2.0
# Share of the machine's memory that models may take where the operator names no number.
_SHARE = 0.8
_MIB = 2**20


class MemoryBudget:
    """Bytes that all loaded models may take, counted from before a model is loaded until its last instance has ended.

    `most_bytes`: 0 for most of what the machine, or its container, has.
    """

    def __init__(self, most_bytes: int = 0) -> None:
        self.most_bytes = most_bytes or int(usable_memory() * _SHARE)
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
                    f"{self.most_bytes / _MIB:.1f} MiB for models are free; unload another one or raise INFERENCE_MODEL_MEMORY_BYTES"
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
        self._before = resident_bytes()

    def measure(self) -> None:
        """The model is loaded: count what it took, at least the size of its files. Raises `MemoryExhausted`."""
        grown = resident_bytes() - self._before
        self._budget.change(self, max(grown, self._size), f"took {max(grown, self._size) / _MIB:.1f} MiB")

    def release(self) -> None:
        """The model is gone."""
        self._budget.release(self)


def resident_bytes(*, statm: Path = Path("/proc/self/statm")) -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
