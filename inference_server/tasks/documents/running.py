"""In which thread a document is read: what pdfium reads goes one by one, and holds no thread of those that read the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, Protocol, TypeVar

from inference_server.threads import begin_in_thread, begin_one_by_one, one_by_one, turn_of


class _Closable(Protocol):
    """What has to be closed."""

    def close(self) -> None:
        """Free it."""


P = ParamSpec("P")
T = TypeVar("T")
Opened = TypeVar("Opened", bound=_Closable)

PDF = "application/pdf"


async def in_thread_of(media_type: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, of a document of this type."""
    if media_type == PDF:
        return await one_by_one(work, *args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


async def opened(media_type: str, opening: Callable[[], Opened]) -> Opened:
    """What opens in the thread of its type; a task that is cancelled leaves it to be closed there, not whenever memory is collected."""
    begin = begin_one_by_one if media_type == PDF else begin_in_thread
    future = begin(opening)
    try:
        return await (turn_of(future) if media_type == PDF else asyncio.wrap_future(future))
    except asyncio.CancelledError:
        if not future.cancel():
            future.add_done_callback(lambda ended: _close(begin, ended))
        raise


def _close(begin: Callable[[Callable[[], None]], Future[None]], ended: Future[Opened]) -> None:
    if not ended.exception():
        begin(ended.result().close)
