"""How long this thread was ready to run and did not, because other threads and processes had the cores."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest


def waited_for_a_core() -> float:
    """Seconds so far; skips the test where the system does not tell."""
    stat = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    if not stat.exists():
        pytest.skip("the system does not tell how long a thread waited for a core")
    return int(stat.read_text().split()[1]) / 1e9
