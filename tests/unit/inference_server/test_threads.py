"""Cores, and work in threads: what a task is told, and that it outlives none of it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from inference_server.threads import in_thread, on_core, on_disk, read_and_compute, usable_cores

Run = Callable[..., Coroutine[Any, Any, Any]]


async def reading(work: Callable[..., Any], *given: Any) -> Any:
    """By the thread that reads, before another that has nothing to compute."""
    return await read_and_compute(lambda: work(*given), lambda read: read)


async def computing(work: Callable[..., Any], *given: Any) -> Any:
    """On a core, of what was read."""
    return await read_and_compute(lambda: given, lambda read: work(*read))


ways = pytest.mark.parametrize("run", [in_thread, on_core, computing])
all_ways = pytest.mark.parametrize("run", [in_thread, on_core, on_disk, reading, computing])


@all_ways
async def test_what_the_work_gives_or_raises_is_told(run: Run) -> None:
    assert [1, 3] == await run(sorted, [3, 1])
    with pytest.raises(KeyError, match="lost"):
        await run({}.__getitem__, "lost")


@all_ways
async def test_the_work_sees_the_context_of_the_task(run: Run) -> None:
    request = contextvars.ContextVar("request", default="none")
    request.set("r-1")
    assert await run(request.get) == "r-1"


@pytest.mark.parametrize("run", [on_core, computing])
async def test_no_more_computes_at_a_time_than_there_are_cores_and_what_is_cancelled_before_it_begins_never_does(run: Run) -> None:
    cores, begun, goes_on = max(usable_cores(), 2), threading.Semaphore(0), threading.Event()

    def work() -> None:
        begun.release()
        goes_on.wait(60)

    tasks = [asyncio.create_task(run(work)) for _ in range(cores + 2)]
    for _ in range(cores):
        assert await asyncio.to_thread(begun.acquire, timeout=60)
    assert not await asyncio.to_thread(begun.acquire, timeout=0.05)
    last = tasks.pop()
    last.cancel()
    await asyncio.wait((last,), timeout=60)
    assert last.cancelled()
    goes_on.set()
    await asyncio.gather(*tasks)
    assert begun.acquire(blocking=False)
    assert not begun.acquire(blocking=False)


@ways
@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_that_is_cancelled_ends_when_its_thread_has(run: Run, fails: bool) -> None:
    begun, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        goes_on.wait(30)
        ended.set()
        if fails:
            raise ValueError

    task = asyncio.create_task(run(work))
    await asyncio.to_thread(begun.wait, 30)
    # Again too, as by a server that stops while a client goes away.
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@pytest.mark.parametrize("run", [on_disk, reading])
async def test_a_task_whose_read_hangs_can_be_cancelled_and_holds_nothing_that_computes(run: Run) -> None:
    begun, goes_on = threading.Semaphore(0), threading.Event()

    def read() -> None:
        begun.release()
        goes_on.wait(60)

    tasks = [asyncio.create_task(run(read)) for _ in range(2 * max(usable_cores(), 2))]
    try:
        for _ in tasks:
            assert await asyncio.to_thread(begun.acquire, timeout=60)
        assert await asyncio.wait_for(asyncio.gather(on_core(sum, [1, 2]), in_thread(sum, [1, 2])), 60) == [3, 3]
        for task in tasks:
            task.cancel()
        done, _ = await asyncio.wait(tasks, timeout=60)
        assert len(tasks) == len(done)
    finally:
        goes_on.set()


def test_a_cpu_quota_bounds_the_cores(tmp_path: Path) -> None:
    free = usable_cores(cgroup=tmp_path)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert 1 == usable_cores(cgroup=tmp_path)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert free == usable_cores(cgroup=tmp_path) >= 1
