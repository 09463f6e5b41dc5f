"""Cores, and work in threads that ends before the task that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import structlog

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")

# Threads that read files at a time; each begins when none of the others is idle.
_READING = 32
# After so long a work that others wait for is told.
HELD_SECONDS = 30.0
_log = structlog.get_logger()


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


def side_by_side(here: Callable[[], S], beside: Callable[[], T]) -> tuple[S, T]:
    """What two works make, which spend their time in code that lets another thread go on.

    By one more thread and no other, since each may keep memory of its own.
    """
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(beside)
        return here(), other.result()


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, but a task that is cancelled ends only with its thread: nothing that was given to it is held any longer."""
    return await _ended(_waiting(), partial(work, *args, **kwargs))


def begin_in_thread(work: Callable[[], T]) -> Future[T]:
    """As `in_thread`, for who has to know what became of it."""
    return _waiting().submit(contextvars.copy_context().run, work)


async def on_core(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_thread`, of what computes: as many at a time as there are cores, two at least.

    More would take turns, and each keep its memory out of the others' caches: a twentieth of the time that decoding takes. What waits
    here keeps others from computing.
    """
    return await _ended(_cores(), partial(work, *args, **kwargs))


async def on_disk(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, of what reads files: a mount that hangs holds threads of these alone, and nothing that computes.

    A task that is cancelled leaves its thread to its read, which may never end.
    """
    return await asyncio.wrap_future(_disk().submit(contextvars.copy_context().run, partial(work, *args, **kwargs)))


async def one_by_one(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, of what pdfium does, which may be entered by one thread only: who waits for it holds no thread.

    A task that is cancelled takes back what has not begun, and leaves the thread to what has, which may take for ever.
    """
    return await turn_of(begin_one_by_one(partial(work, *args, **kwargs)))


def begin_one_by_one(work: Callable[[], T]) -> Future[T]:
    """As `one_by_one`, for who has to know what became of it; cancelled before its turn, it is held no longer."""
    return _one().submit(partial(contextvars.copy_context().run, work))


async def turn_of(future: Future[T]) -> T:
    """What a work comes to that is done one by one; tells the log when its turn is kept from it."""
    working = asyncio.wrap_future(future)
    try:
        while not (await asyncio.wait((working,), timeout=HELD_SECONDS))[0]:
            _one().tell_held()
        return working.result()
    finally:
        working.cancel()


def ends_one_by_one(*, seconds: float) -> bool:
    """Whether what is done one by one ends within that time; the process is not to be taken down in order while it does not."""
    return not _one.cache_info().currsize or _one().is_free(seconds)


async def _ended(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    future = threads.submit(contextvars.copy_context().run, work)
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


@cache
def _one() -> _Line:
    return _Line()


class _Line:
    """A thread for works in the order in which they come; neither what was cancelled is held, nor the process' end by what is done."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Future[Any], Callable[[], Any]] = {}
        # When it began what it does now.
        self._since: float | None = None
        self._is_told = False
        threading.Thread(target=self._run, name="one", daemon=True).start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._changed:
            self._waiting[future] = work
            self._changed.notify_all()
        future.add_done_callback(self._leave_out)
        return future

    def tell_held(self) -> None:
        """Tell the log, once, of a work that has taken long."""
        with self._changed:
            seconds = time.monotonic() - self._since if self._since is not None else 0.0
            if self._is_told or seconds < HELD_SECONDS:
                return
            self._is_told = True
            waiting = len(self._waiting)
        _tell("pdfium_held", seconds=round(seconds, 1), waiting=waiting)

    def is_free(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._since is None and not self._waiting, seconds)

    def _leave_out(self, future: Future[Any]) -> None:
        with self._changed:
            self._waiting.pop(future, None)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                future = next(iter(self._waiting))
                work = self._waiting.pop(future)
                self._since = time.monotonic()
            _do(work, future)
            del work, future
            with self._changed:
                seconds, is_told = time.monotonic() - self._since, self._is_told
                self._since, self._is_told = None, False
                self._changed.notify_all()
            if is_told:
                _tell("pdfium_free", seconds=round(seconds, 1))


def _tell(event: str, **told: float) -> None:
    # A log that is broken ends neither the thread nor who waits for it.
    with contextlib.suppress(Exception):
        _log.warning(event, **told)


def _do(work: Callable[[], T], future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
        # Its traceback holds this frame.
        del future, work
    else:
        future.set_result(result)
