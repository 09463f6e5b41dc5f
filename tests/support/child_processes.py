"""Programs that tests and benchmarks start, and their end."""

from __future__ import annotations

import subprocess
from typing import Any


def wait_or_kill(process: subprocess.Popen[Any], *, seconds: float) -> None:
    """Wait for a program that was told to end, and kill it when it has not after so long."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
