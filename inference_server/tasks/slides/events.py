"""A stream of events out of work that runs beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
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
