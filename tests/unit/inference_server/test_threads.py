"""Work in threads: what a task is told, and that it outlives none of it."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from inference_server.threads import in_thread


async def test_what_the_work_gives_or_raises_is_told() -> None:
    assert [1, 3] == await in_thread(sorted, [3, 1])
    with pytest.raises(KeyError, match="lost"):
        await in_thread({}.__getitem__, "lost")


async def test_the_work_sees_the_context_of_the_task() -> None:
    request = contextvars.ContextVar("request", default="none")
    request.set("r-1")
    assert await in_thread(request.get) == "r-1"


@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_that_is_cancelled_ends_when_its_thread_has(fails: bool) -> None:
    begun, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        goes_on.wait(30)
        ended.set()
        if fails:
            raise ValueError

    task = asyncio.create_task(in_thread(work))
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
