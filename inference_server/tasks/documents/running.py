"""In which thread a document is read: what pdfium reads goes one by one, and holds no thread of those that read the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from inference_server.threads import one_by_one

P = ParamSpec("P")
T = TypeVar("T")

PDF = "application/pdf"


async def in_thread_of(media_type: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, of a document of this type."""
    if media_type == PDF:
        return await one_by_one(work, *args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
