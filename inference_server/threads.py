"""Work in threads that ends before the task that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, but a task that is cancelled ends only with its thread: nothing that was given to it is held any longer."""
    context = contextvars.copy_context()
    working = asyncio.get_running_loop().run_in_executor(None, lambda: context.run(work, *args, **kwargs))
    try:
        await asyncio.wait((working,))
    except asyncio.CancelledError:
        while not working.done():
            with contextlib.suppress(asyncio.CancelledError):  # again; the first is told in the end
                await asyncio.wait((working,))
        working.exception()  # looked at, so that it is not told as lost
        raise
    return working.result()
