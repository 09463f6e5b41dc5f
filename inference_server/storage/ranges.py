"""Ranges of a file that are read together: of a store, neighbours by one request; on this machine, each to its own place in memory."""

from __future__ import annotations

import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from obstore import Bytes

# Places that one call of the kernel fills.
_MOST_PLACES = 1024
# Bytes between two ranges that are read with them in one request: what writers leave for alignment.
_MOST_GAP_BYTES = 512


def joined(starts: Sequence[int], ends: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges in order, neighbours as one."""
    spans: list[tuple[int, int]] = []
    for start, end in sorted(zip(starts, ends, strict=True)):
        if spans and start - spans[-1][1] <= _MOST_GAP_BYTES:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


def cut(spans: Sequence[tuple[int, int]], read: Sequence[bytes | Bytes], starts: Sequence[int], ends: Sequence[int]) -> list[memoryview]:
    """The ranges that were asked for, cut from the spans that hold them."""
    views = [memoryview(content) for content in read]
    places = [bisect_right(spans, (start, sys.maxsize)) - 1 for start in starts]
    return [views[place][start - spans[place][0] : end - spans[place][0]] for place, start, end in zip(places, starts, ends, strict=True)]


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
