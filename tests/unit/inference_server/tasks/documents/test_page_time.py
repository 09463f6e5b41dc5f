"""A page's time counts while it is worked on."""

from __future__ import annotations

import asyncio
import time

import pytest

from inference_server.allocator import Reuse
from inference_server.tasks.documents.page_time import PageTime


def page_time(turns: asyncio.Semaphore, *, seconds: float, document_seconds: float = 60.0) -> PageTime:
    return PageTime(turns, Reuse(), seconds=seconds, until=time.monotonic() + document_seconds)


async def test_what_others_keep_waiting_loses_no_time() -> None:
    turns = asyncio.Semaphore(0)
    async with page_time(turns, seconds=0.2) as page:
        assert page.is_waiting
        await asyncio.sleep(0.3)
        waiting = asyncio.create_task(turns.acquire())
        await asyncio.sleep(0.3)
        waiting.cancel()
        assert page.is_waiting


async def test_work_ends_with_its_time_however_it_is_interrupted() -> None:
    turns = asyncio.Semaphore(1)
    page = page_time(turns, seconds=0.2)

    async def work() -> None:
        async with page:
            page.run()
            await asyncio.sleep(0.01)
            await page.turn()
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await work()
    assert not page.is_waiting
    assert not turns.locked(), "the turn is given back"


async def test_waiting_ends_with_the_time_of_the_document() -> None:
    page = page_time(asyncio.Semaphore(0), seconds=60, document_seconds=0.1)
    with pytest.raises(TimeoutError):
        await _waited(page)
    assert page.is_waiting


async def _waited(page: PageTime) -> None:
    async with page:
        await page.turn()
