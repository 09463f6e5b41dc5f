"""What computes on this machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from inference_server.threads import usable_cores

_NVIDIA_SMI_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Device:
    """A processor or a GPU."""

    # As a setting names it: cpu, cuda:0.
    id: str
    # As its maker names it.
    name: str
    # Cores that this process may use; 0 for a GPU.
    cores: int = 0


def cpu() -> Device:
    """The processor, with the cores that this process may use."""
    return Device(id="cpu", name=_cpu_name(), cores=usable_cores())


def gpus() -> tuple[Device, ...]:
    """The NVIDIA GPUs that the driver reports; none where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=index,name", "--format=csv,noheader"]
    try:
        report = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(_gpu(line) for line in report.splitlines() if line.count(",") == 1)


def usable_memory(*, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of the machine's memory, or fewer where a container's limit says so."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int((cgroup / "memory.max").read_text()))
    except (OSError, ValueError):  # no limit, or not Linux
        return machine


def _cpu_name() -> str:
    """Model and feature level: two machines of one name may differ in what they compute fast."""
    try:
        fields = dict(_field(line) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines() if ":" in line)
    except OSError:
        return platform.processor() or platform.machine()
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields['cpu family']} model {fields['model']})" if {"cpu family", "model"} <= set(fields) else name


def _field(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _gpu(line: str) -> Device:
    index, name = (part.strip() for part in line.split(","))
    return Device(id=f"cuda:{index}", name=name)
