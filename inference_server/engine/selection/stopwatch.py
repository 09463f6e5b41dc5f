"""How long something takes, and how long it would have taken had the machine done nothing else meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from inference_server.threads import usable_cores

# Linux tells for each thread the nanoseconds that it ran, those that it waited for a core, and how often it ran.
_TASKS = Path("/proc/self/task")


@dataclass(frozen=True, kw_only=True)
class ThreadTimes:
    """Of one thread since it began, in nanoseconds."""

    ran: int
    # For a core, while it could have run.
    waited: int


def wall_seconds(work: Callable[[], object]) -> float:
    """Seconds that `work` took: right for what waits for a device most of the time, of which no clock of threads tells."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def quiet_seconds(work: Callable[[], object]) -> float:
    """Seconds that `work` would take on a quiet machine; where the system does not tell, those that it took."""
    before, used = thread_times(), time.process_time()
    seconds = wall_seconds(work)
    used = time.process_time() - used
    return without_waiting(seconds, waited=longest_wait(before, thread_times()), used=used, cores=usable_cores())


def without_waiting(seconds: float, *, waited: float, used: float, cores: int) -> float:
    """Seconds without what was waited for a core, but never less than the processor time shared by all cores.

    `waited`: by the thread that waited longest, as threads that compute side by side wait at the same time or for each other.
    `used`: processor time of all.
    """
    return min(seconds, max(seconds - waited, used / cores))


def longest_wait(before: Mapping[str, ThreadTimes], after: Mapping[str, ThreadTimes]) -> float:
    """Seconds that one thread waited for a core at most, of those that ran meanwhile."""
    none = ThreadTimes(ran=0, waited=0)
    waits = (now.waited - then.waited for name, now in after.items() if now.ran > (then := before.get(name, none)).ran)
    return max(waits, default=0) / 1e9


def thread_times(*, tasks: Path = _TASKS) -> dict[str, ThreadTimes]:
    """Of this process' threads, by their ids; empty where the system does not tell."""
    read = {path.parent.name: _read(path) for path in tasks.glob("*/schedstat")}
    return {name: times for name, times in read.items() if times is not None}


def _read(path: Path) -> ThreadTimes | None:
    try:
        ran, waited = path.read_text().split()[:2]
        return ThreadTimes(ran=int(ran), waited=int(waited))
    except (OSError, ValueError):  # the thread has ended
        return None
