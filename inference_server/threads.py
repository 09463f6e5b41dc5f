"""Cores, and work in threads that ends before the task that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")

# Threads that read files at a time; each begins when none of the others is idle.
_READING = 32


def usable_cores(*, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores of the affinity mask, or fewer where a container's CPU quota says so.

    More threads than the quota has cores are stopped for the rest of each period, all at once.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no quota, or not Linux
        return cores


def keep_opencv_single() -> None:
    """Have OpenCV compute on its caller's thread, in the whole process.

    What calls it works side by side already: threads of OpenCV's own would take the cores from that, and wait for work in loops.
    """
    import cv2

    cv2.setNumThreads(1)


def side_by_side(here: Callable[[], S], beside: Callable[[], T]) -> tuple[S, T]:
    """What two works make, which spend their time in code that lets another thread go on.

    By one more thread and no other, since each may keep memory of its own.
    """
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(beside)
        return here(), other.result()


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, but a task that is cancelled ends only with its thread: nothing that was given to it is held any longer."""
    return await _ended(begin_in_thread(partial(work, *args, **kwargs)))


def begin_in_thread(work: Callable[[], T]) -> Future[T]:
    """As `in_thread`, for who has to know what became of it."""
    return _begun(_waiting(), work)


async def on_core(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_thread`, of what computes: as many at a time as there are cores, two at least.

    More would take turns, and each keep its memory out of the others' caches: a twentieth of the time that decoding takes. What waits
    here keeps others from computing.
    """
    return await _ended(_begun(_cores(), partial(work, *args, **kwargs)))


async def on_disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, of what reads files: a mount that hangs holds threads of these alone, and nothing that computes.

    A task that is cancelled leaves its thread to its read, which may never end.
    """
    return await asyncio.wrap_future(_begun(_disk(), partial(work, *args, **kwargs)))


async def read_and_compute(read: Callable[[], S], compute: Callable[[S], T]) -> T:
    """What is computed, as `on_core`, of what was read, as `on_disk`.

    The event loop has no part in handing over: its turn there would be taken from what computes, some percent of the rate.
    """
    computed, context = Future[T](), contextvars.copy_context()

    def go_on(reading: Future[S]) -> None:
        if computed.set_running_or_notify_cancel():
            try:
                computed.set_result(context.run(compute, reading.result()))
            except BaseException as error:  # told to whoever waits
                computed.set_exception(error)

    _begun(_disk(), read).add_done_callback(lambda reading: _cores().submit(go_on, reading))
    return await _ended(computed)


def _begun(threads: ThreadPoolExecutor, work: Callable[[], T]) -> Future[T]:
    return threads.submit(contextvars.copy_context().run, work)


async def _ended(future: Future[T]) -> T:
    """What a thread makes; a task that is cancelled ends with it."""
    working = asyncio.wrap_future(future)
    try:
        await asyncio.wait((working,))
    except asyncio.CancelledError:
        if future.cancel():  # it had not begun
            raise
        while not working.done():
            with contextlib.suppress(asyncio.CancelledError):  # again; the first is told in the end
                await asyncio.wait((working,))
        working.exception()  # looked at, so that it is not told as lost
        raise
    return working.result()


@cache
def _waiting() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="waiting")


@cache
def _cores() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(usable_cores(), 2), thread_name_prefix="core")


@cache
def _disk() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_READING, thread_name_prefix="disk")
