"""Programs that tests and benchmarks start: what they hold in memory, and their end."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def wait_or_kill(process: subprocess.Popen[Any], *, seconds: float) -> None:
    """Wait for a program that was told to end, and kill it when it has not after so long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def resident_bytes(pid: int) -> int:
    """What a process holds in memory."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """The most that it held at any time."""
    return _status_bytes(pid, "VmHWM")


def _status_bytes(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def children_of(pid: int) -> list[int]:
    """The processes that a process started and that run, or were not yet waited for."""
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
