"""How long something takes, and how long it would have taken had the machine done nothing else meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from inference_server.engine.devices import usable_cores

# Linux tells for each thread the nanoseconds that it ran, those that it waited for a core, and how often it ran.
_TASKS = Path("/proc/self/task")


def quiet_seconds(work: Callable[[], object]) -> float:
    """Seconds that `work` would take on a quiet machine; where the system does not tell, those that it took."""
    waited, used, begun = waited_seconds(), time.process_time(), time.perf_counter()
    work()
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    return without_waiting(seconds, waited=waited_seconds() - waited, used=used, cores=usable_cores())


def without_waiting(seconds: float, *, waited: float, used: float, cores: int) -> float:
    """Seconds without what threads waited for a core.

    `waited`: of all threads together, `used`: their processor time. Waits of threads that compute side by side overlap, so that taking
    them all off may be too much; but nothing takes less than its processor time shared by all cores.
    """
    return min(seconds, max(seconds - waited, used / cores))


def waited_seconds(*, tasks: Path = _TASKS) -> float:
    """Seconds that this process' threads have waited for a core, all together; 0 where the system does not tell."""
    return sum(map(_waited_nanoseconds, tasks.glob("*/schedstat"))) / 1e9


def _waited_nanoseconds(path: Path) -> int:
    try:
        return int(path.read_text().split()[1])
    except (OSError, ValueError, IndexError):  # the thread has ended
        return 0
