"""Ranges of a file on this machine, each read to its own place in memory at once: what is made of them needs no copy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

# Places that one call of the kernel fills.
_MOST_PLACES = 1024


def read_scattered(path: Path, starts: Sequence[int], ends: Sequence[int], *, room: int = 0) -> list[memoryview]:
    """Ranges in the order asked, neighbours by one call; blocks. Raises `OSError`, for ranges past the file's end too.

    `room`: bytes before each range that belong to its view, and hold nothing yet. All views may be written to.
    """
    block = np.empty(sum(ends) - sum(starts) + room * len(starts), np.uint8).data
    views, at = [], 0
    for start, end in zip(starts, ends, strict=True):
        views.append(block[at : at + room + end - start])
        at += room + end - start
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for run in _runs(starts, ends):
            wanted = sum(ends[number] - starts[number] for number in run)
            if os.preadv(descriptor, [views[number][room:] for number in run], starts[run[0]]) != wanted:
                raise OSError("the file is shorter than it was")
    finally:
        os.close(descriptor)
    return views


def _runs(starts: Sequence[int], ends: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of ranges by their place, each list of those that follow on each other."""
    run: list[int] = []
    for number in sorted(range(len(starts)), key=starts.__getitem__):
        if run and (starts[number] != ends[run[-1]] or len(run) == _MOST_PLACES):
            yield run
            run = []
        run.append(number)
    if run:
        yield run
