"""Ranges of a file that are asked for together."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore import Bytes

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
