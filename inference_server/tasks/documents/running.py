"""What is opened in a thread, and closed if nobody waits for it any longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from inference_server.threads import begin_in_thread


class _Closable(Protocol):
    """What has to be closed."""

    def close(self) -> None:
        """Free it."""


Opened = TypeVar("Opened", bound=_Closable)


async def opened(opening: Callable[[], Opened]) -> Opened:
    """What opens in a thread; a task that is cancelled leaves it to be closed there, not whenever memory is collected."""
    future = begin_in_thread(opening)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        if not future.cancel():
            future.add_done_callback(_close)
        raise


def _close(ended: Future[Opened]) -> None:
    if not ended.exception():
        begin_in_thread(ended.result().close)
