"""Keeps the process small: what is freed goes back to the machine."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# Arenas, from which threads take their blocks: by itself glibc has one for each thread, up to eight times as many as cores, and what is
# free in one serves no thread of another. With a slide's decoded tiles in them that was 200 to 400 MB that nobody used.
_MOST_ARENAS = min(max(os.cpu_count() or 1, 2), 8)
_LARGE_BYTES = 2**20
# What each thread may always keep free for its next blocks: work that takes and frees some MB again and again, such as the matching of
# lab tests, else has the kernel hand out and clear the same pages each time, a fifth of its processor time.
_SPARE_BYTES = 2 * 2**20
# So much is kept of all arenas: less of each where there are many.
_KEPT_TOGETHER_BYTES = 2**28


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept for the next block while somebody works."""

    # Blocks up to so large, 32 MiB at most.
    block_bytes: int
    # So much that lies free at the end of each of glibc's arenas.
    most_bytes: int
    # How long after the last one has ended.
    idle_seconds: float = 0.0


# The pixels of a call among them.
KEPT_FOR_SLIDES = Kept(block_bytes=2**22, most_bytes=2**25)
# What is summed up and written of a slide comes a few rows at a time.
KEPT_FOR_FINDINGS = Kept(block_bytes=2**22, most_bytes=2**23)
# Pages, and what the detector takes and answers. One page follows another: giving back between them would cost as much as it saves.
KEPT_FOR_DOCUMENTS = Kept(block_bytes=2**24, most_bytes=2**24, idle_seconds=10.0)
# Large requests and answers: each is in a block of its own several times, as bytes, as tensors, and as what an engine answers.
KEPT_FOR_MESSAGES = Kept(block_bytes=2**24, most_bytes=2**24, idle_seconds=10.0)


def return_what_is_freed() -> None:
    """Have glibc give large blocks back as soon as they are freed, and threads share what is free; elsewhere nothing is done.

    Before threads are started, since each keeps the arena that it has.
    By itself it learns from the first large block that is freed, such as an engine that was compared and not chosen, to keep blocks of
    that size: 60 to 100 MB that nobody uses.
    """
    if libc := _glibc():
        libc.mallopt(_ARENA_MAX, _MOST_ARENAS)
    _keep_little()


class Reuse:
    """Has glibc keep what is freed while somebody works who soon wants as much again.

    Each fresh page costs a fault and is cleared: of the pixels of a slide's tiles, a fifth of the time that their reading takes; of the
    arrays that a slide is surveyed and written with, half of that; of a document's pages, a twentieth; of requests of 1 MiB, a half.
    """

    def __init__(self, *, arenas: int = _MOST_ARENAS) -> None:
        """Of one process there is one. `arenas`: those that there may be."""
        self._wanted: list[Kept] = []
        self._most_bytes = _KEPT_TOGETHER_BYTES // arenas
        # By what is wanted soon again: until when, in the event loop's time.
        self._soon: dict[Kept, float] = {}

    @contextlib.asynccontextmanager
    async def reused(self, kept: Kept) -> AsyncIterator[None]:
        """Keep large blocks as long as the block lasts. What the last one leaves is given back, however it leaves.

        An arena's end, at most what was kept of it, goes with the next larger block that its thread frees.
        """
        self._wanted.append(kept)
        self._keep()
        try:
            yield
        finally:
            if kept.idle_seconds:
                self.soon_again(kept)
            if self._wants_no_more(kept):
                await asyncio.to_thread(return_what_is_free)

    def soon_again(self, kept: Kept) -> None:
        """Keep large blocks from now on until nobody has said so for its `idle_seconds`; on the event loop. Costs next to nothing again."""
        loop = asyncio.get_running_loop()
        is_new = kept not in self._soon
        self._soon[kept] = loop.time() + kept.idle_seconds
        if is_new:
            self._wanted.append(kept)
            self._keep()
            loop.call_later(kept.idle_seconds, self._look_at, kept)

    def _look_at(self, kept: Kept) -> None:
        loop = asyncio.get_running_loop()
        left = self._soon[kept] - loop.time()
        if left > 0:
            loop.call_later(left, self._look_at, kept)
            return
        del self._soon[kept]
        if self._wants_no_more(kept):
            loop.run_in_executor(None, return_what_is_free)

    def _wants_no_more(self, kept: Kept) -> bool:
        """Whether nobody wants anything any more, when this one does not."""
        self._wanted.remove(kept)
        if self._wanted:
            self._keep()
        else:
            _keep_little()
        return not self._wanted

    def _keep(self) -> None:
        most_bytes = min(max(kept.most_bytes for kept in self._wanted), self._most_bytes)
        _keep(block_bytes=max(kept.block_bytes for kept in self._wanted), most_bytes=most_bytes)


def _keep_little() -> None:
    _keep(block_bytes=_LARGE_BYTES, most_bytes=_SPARE_BYTES)


def _keep(*, block_bytes: int, most_bytes: int) -> None:
    if libc := _glibc():
        libc.mallopt(_MMAP_THRESHOLD, block_bytes)
        libc.mallopt(_TRIM_THRESHOLD, most_bytes)


def return_what_is_free() -> None:
    """Have glibc give back what lies free between blocks that are in use, after much of a small size was freed; blocks for some ms."""
    if libc := _glibc():
        libc.malloc_trim(0)


def leave_to_itself() -> None:
    """Have the garbage collector look no more at what there is now: modules, classes and what was loaded.

    A full collection looks at all of it, 150,000 objects in a server, and holds everything up for 70 to 100 ms. What is freed when
    nobody refers to it any more is freed as before; only cycles among what there is now are kept for ever.
    """
    gc.collect()
    gc.freeze()


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
