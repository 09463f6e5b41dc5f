"""Whose turn it is, when each is to get its share by weight.

Stride scheduling (Waldspurger and Weihl, 1995): each one's pass rises by what it took over its weight, and the lowest pass goes next.
Who comes anew begins at the pass that was served last: it goes before all who were served since, and cannot save up turns.
Who is served in another's turn, to fill what that one leaves over, pays for it, and is told how much it was (`surplus`).
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Generator, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
# Those gone of whom it is remembered that they took more than their share.
_MOST_REMEMBERED = 1024
# Entries that are out of date before the heap is built anew.
_MOST_STALE = 64


class Turns(Generic[Key]):
    """Those who wait, in the order of their turns.

    `weight`: share of each; infinity goes before all others, 0 after all others. `rank`: who goes first of those that are even, the
    lower; without it who came first. Every operation takes time by the logarithm of those who wait.
    """

    def __init__(self, weight: Callable[[Key], float], *, rank: Callable[[Key], int] | None = None) -> None:
        self._weight = weight
        self._rank = rank
        self._numbers = itertools.count()
        # Pass, rank, key; the current one of each is in `_waiting`, others in the heap are out of date.
        self._heap: list[tuple[float, int, Key]] = []
        self._waiting: dict[Key, tuple[float, int, Key]] = {}
        self._gone: dict[Key, float] = {}
        # By how much the pass of each who waits has risen in others' turns.
        self._surplus: dict[Key, float] = {}
        # The pass that was served last.
        self._now = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def enter(self, key: Key) -> None:
        """Someone waits from now on."""
        if key not in self._waiting:
            self._place(key, math.inf if not self._weight(key) else max(self._gone.pop(key, 0.0), self._now))

    def leave(self, key: Key) -> None:
        """Someone waits no more."""
        at = self._waiting.pop(key)[0]
        self._surplus.pop(key, None)
        if self._now < at < math.inf:
            self._gone[key] = at
        if len(self._gone) > _MOST_REMEMBERED:
            still = {key: at for key, at in self._gone.items() if at > self._now}
            self._gone = still if len(still) <= _MOST_REMEMBERED else {}

    def charge(self, key: Key, cost: float, *, surplus: bool = False) -> None:
        """Someone who waits was given so much; `surplus`: in another's turn."""
        at = self._waiting[key][0]
        if at == math.inf:
            return
        self._now = max(self._now, at)
        paid = cost / self._weight(key)
        if surplus:
            self._surplus[key] = self.surplus(key) + paid
        self._place(key, at + paid)

    def surplus(self, key: Key) -> float:
        """By how much the pass of someone who waits has risen in others' turns."""
        return self._surplus.get(key, 0.0)

    def place(self, key: Key, *, since: float) -> tuple[float, int]:
        """Where someone who waits stands, the lowest first, when what it was given in others' turns does not count from `since` on."""
        at, number, _ = self._waiting[key]
        return at - (self.surplus(key) - since), number

    def first(self) -> Key:
        """Whose turn it is, of at least one that waits."""
        self._drop_stale()
        return self._heap[0][2]

    def in_order(self) -> Generator[Key, None, None]:
        """All who wait, from the first; whoever is given something meanwhile comes again at its new turn. Close it before the next call."""
        passed: list[tuple[float, int, Key]] = []
        try:
            while True:
                self._drop_stale()
                if not self._heap:
                    return
                passed.append(heapq.heappop(self._heap))
                yield passed[-1][2]
        finally:
            for entry in passed:
                if self._waiting.get(entry[2]) is entry:
                    heapq.heappush(self._heap, entry)

    def _place(self, key: Key, at: float) -> None:
        number = next(self._numbers)
        entry = (at, number if self._rank is None else self._rank(key), key)
        self._waiting[key] = entry
        if len(self._heap) > 2 * len(self._waiting) + _MOST_STALE:
            self._heap = [entry for entry in self._heap if self._waiting.get(entry[2]) is entry]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, entry)

    def _drop_stale(self) -> None:
        while self._heap and self._waiting.get(self._heap[0][2]) is not self._heap[0]:
            heapq.heappop(self._heap)
