"""Pages that a process asks for again and again, and those that it keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="glibc alone can be told what to keep")
# Of a block that is asked for ten times.
PAGES = 512
# What the programs begin with, each a process of its own: what others have freed before would serve for blocks of ours.
_FAULTS = f"""
import asyncio, json, resource, time
import numpy as np
from inference_server.allocator import KEPT_FOR_SLIDES, Kept, Reuse, return_what_is_freed

def faults():
    np.ones({PAGES} * resource.getpagesize(), np.uint8)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(10):
        np.ones({PAGES} * resource.getpagesize(), np.uint8)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
"""
_PROGRAM = f"""
{_FAULTS}
def pages():
    return int(open("/proc/self/statm").read().split()[1])

def free_between():
    "Frees much that lies below a block that is in use, which it returns."
    blocks = [np.ones(64 * resource.getpagesize(), np.uint8) for _ in range(8 * {PAGES} // 64)]
    return np.ones(32 * resource.getpagesize(), np.uint8)

async def main():
    return_what_is_freed()
    memory = Reuse(arenas=4)
    told = [faults()]
    async with memory.reused(KEPT_FOR_SLIDES):
        async with memory.reused(KEPT_FOR_SLIDES):
            told.append(faults())
        told.append(faults())
    told.append(faults())
    async with Reuse(arenas=1000).reused(KEPT_FOR_SLIDES):
        told.append(faults())
    before = pages()
    try:
        async with memory.reused(KEPT_FOR_SLIDES):
            async with memory.reused(KEPT_FOR_SLIDES):
                kept = free_between()
            told.append(pages() - before)
            raise ValueError
    except ValueError:
        told.append(pages() - before)
    # What lies free below it would serve for blocks of ours.
    kept = None
    lingering = Kept(block_bytes=KEPT_FOR_SLIDES.block_bytes, most_bytes=KEPT_FOR_SLIDES.most_bytes, idle_seconds=5)
    async with memory.reused(lingering):
        pass
    told.append(faults())
    async with memory.reused(lingering):
        await asyncio.sleep(5.5)
        told.append(faults())
    until = time.monotonic() + 30
    while (after := faults()) < {PAGES} and time.monotonic() < until:
        await asyncio.sleep(0.1)
    told.append(after)
    print(json.dumps(told))

asyncio.run(main())
"""
# Of what is told to be wanted soon again, three times, and then no more, by a clock that is moved.
_SOON = f"""
{_FAULTS}
async def main():
    loop, moved = asyncio.get_running_loop(), 0
    clock = loop.time
    loop.time = lambda: clock() + moved
    return_what_is_freed()
    memory, kept = Reuse(arenas=4), Kept(block_bytes=2**24, most_bytes=2**24, idle_seconds=1000)
    told = [faults()]
    for _ in range(3):
        memory.soon_again(kept)
        moved += 600
        for _ in range(5):
            await asyncio.sleep(0)
        told.append(faults())
    moved += 600
    for _ in range(5):
        await asyncio.sleep(0)
    until = time.monotonic() + 60
    while (after := faults()) < {PAGES} and time.monotonic() < until:
        await asyncio.sleep(0.1)
    print(json.dumps([*told, after]))

asyncio.run(main())
"""
# Pages that 32 threads leave, which each took and freed 410 of them, one after the other, and none of which has ended.
_THREADS = f"""
import json, resource, threading
import numpy as np
from inference_server.allocator import return_what_is_freed

def pages():
    return int(open("/proc/self/statm").read().split()[1])

def work():
    with turn:
        blocks = [np.ones(16 * resource.getpagesize(), np.uint8) for _ in range({PAGES} // 20)]
        del blocks
    all_done.wait()
    ended.wait()

return_what_is_freed()
turn, all_done, ended, before = threading.Lock(), threading.Barrier(33), threading.Event(), pages()
threads = [threading.Thread(target=work) for _ in range(32)]
for thread in threads:
    thread.start()
all_done.wait()
print(json.dumps(pages() - before))
ended.set()
"""

# Seconds of a full collection before and after what is there is left to itself, and objects of a cycle that is made later and collected.
_COLLECTIONS = """
import gc, json, time
from inference_server.allocator import leave_to_itself

def collection():
    began = time.perf_counter()
    return gc.collect(), time.perf_counter() - began

there = [[number] for number in range(500_000)]
collection()
before = collection()[1]
leave_to_itself()
cycle = []
cycle.append(cycle)
del cycle
print(json.dumps([before, *reversed(collection())]))
"""


@pytest.fixture(scope="module")
def told() -> list[int]:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def test_large_blocks_are_kept_for_the_next_ones_as_long_as_anybody_wants_it(told: list[int]) -> None:
    before, wanted_twice, wanted_once, after, *_ = told

    assert before >= 10 * PAGES
    assert max(wanted_twice, wanted_once) < PAGES
    assert after >= 10 * PAGES


def test_many_arenas_keep_no_more_together_than_few(told: list[int]) -> None:
    assert told[4] >= 5 * PAGES


def test_what_was_kept_is_given_back_when_the_last_one_fails(told: list[int]) -> None:
    kept, left = told[5:7]

    assert kept >= 6 * PAGES
    assert left < PAGES


def test_what_one_thread_frees_serves_others() -> None:
    done = subprocess.run([sys.executable, "-c", _THREADS], capture_output=True, text=True, check=True)

    assert int(done.stdout) < 32 * 400 / 3


def test_what_one_soon_wants_again_is_kept_for_a_while(told: list[int]) -> None:
    while_kept, while_wanted_again, after = told[7:]

    assert max(while_kept, while_wanted_again) < PAGES
    assert after >= 10 * PAGES


def test_what_is_told_to_be_wanted_soon_again_is_kept_until_nobody_says_so_any_more() -> None:
    done = subprocess.run([sys.executable, "-c", _SOON], capture_output=True, text=True, check=True)
    before, *kept, after = json.loads(done.stdout)

    assert before >= 10 * PAGES
    assert max(kept) < PAGES
    assert after >= 10 * PAGES


def test_a_full_collection_looks_only_at_what_came_after_what_is_left_to_itself() -> None:
    done = subprocess.run([sys.executable, "-c", _COLLECTIONS], capture_output=True, text=True, check=True)
    before, after, collected = json.loads(done.stdout)
    assert after < before / 4
    assert 1 == collected
