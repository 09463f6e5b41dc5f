"""A stream of events out of work that runs beside it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST_WAITING = 8


class EventStream(Generic[T]):
    """Bounded: work waits for a slow reader, and ends when the reader goes away."""

    def __init__(self) -> None:
        """One stream for one piece of work."""
        self._queue: asyncio.Queue[T] = asyncio.Queue(maxsize=_MOST_WAITING)

    async def run(self, work: Callable[[Callable[[T], Awaitable[None]]], Coroutine[object, object, None]]) -> AsyncGenerator[T]:
        """Start `work(emit)` and yield what it emits. Raises what it raises; leaving the iterator cancels it and waits for its end."""
        task = asyncio.create_task(work(self._queue.put))
        try:
            while (event := await self._next(task)) is not None:
                yield event
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _next(self, task: asyncio.Task[None]) -> T | None:
        """The next event; None when the work has ended and all its events are read."""
        while self._queue.empty():
            if task.done():
                return None
            getter = asyncio.create_task(self._queue.get())
            try:
                await asyncio.wait({getter, task}, return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    return getter.result()
            finally:
                getter.cancel()
        return self._queue.get_nowait()


class Pulse(Generic[T]):
    """Repeats the last event of its kind after a silence, so that a caller does not take long work for a dead connection."""

    def __init__(self, emit: Callable[[T], Awaitable[None]], *, seconds: float) -> None:
        """`seconds`: of silence."""
        self._emit = emit
        self._seconds = seconds
        self._last: T | None = None
        self._emitted_at = 0.0

    async def tell(self, event: T) -> None:
        """Emit an event that may be repeated."""
        self._last = event
        await self.emit(event)

    async def emit(self, event: T) -> None:
        """Emit an event that is told once."""
        await self._emit(event)
        self._emitted_at = time.monotonic()

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Repeat for as long as the block lasts."""
        task = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            silence = time.monotonic() - self._emitted_at
            if silence >= self._seconds and self._last is not None:
                await self.emit(self._last)
                silence = 0.0
            await asyncio.sleep(max(self._seconds - silence, self._seconds / 10))


@contextlib.contextmanager
def first_failure() -> Iterator[None]:
    """Raise the first error of a group of tasks instead of the group: the others only followed from it."""
    try:
        yield
    except ExceptionGroup as group:
        first: Exception = group
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise first from None
