"""`rate_limiter` of a config.pbtxt: what instances hold while they run, within this server.

As in Triton, of each resource there is as much as the instance takes that takes the most, so that any one of them can run.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from inference_server.scheduler.dispatch.executor import PlacedEngine
from inference_server.scheduler.dispatch.turns import Turns

# A resource's name, and the device whose it is; empty for all.
_Good = tuple[str, str]


class RateLimiter:
    """The resources of all devices, and the models that wait for some, which take turns by their priorities."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._seats: dict[int, Seat] = {}
        self._turns = Turns[int](lambda number: 1.0 / self._seats[number].priority)
        self._used: Counter[_Good] = Counter()

    def seat(self, placed: Sequence[PlacedEngine], wake: Callable[[], None]) -> Seat:
        """The access of a model; `wake` is called when what its instances wait for may be free."""
        number = next(self._numbers)
        self._seats[number] = Seat(self, number, placed, wake)
        return self._seats[number]

    def may_run(self, placed: PlacedEngine) -> bool:
        """Whether what an instance takes is free."""
        return all(self._used[good] + count <= self._total(good) for good, count in goods(placed))

    def begin(self, number: int, placed: PlacedEngine) -> None:
        """An instance takes what it needs."""
        self._used.update(dict(goods(placed)))
        self._turns.enter(number)
        self._turns.charge(number, 1.0)
        self._turns.leave(number)

    def wait(self, number: int) -> None:
        """A model wants to run as soon as it may."""
        self._turns.enter(number)

    def end(self, placed: PlacedEngine) -> None:
        """An instance gives back what it took, and those who wait are called in the order of their turns."""
        self._used.subtract(dict(goods(placed)))
        order = list(self._turns.in_order())
        for number in order:
            self._turns.leave(number)
        for number in order:
            self._seats[number].wake()

    def close(self, number: int) -> None:
        """A model is gone; may be told again."""
        if number in self._seats:
            self._turns.enter(number)
            self._turns.leave(number)
            del self._seats[number]

    def _total(self, good: _Good) -> int:
        wishes = (count for seat in self._seats.values() for placed in seat.placed for wished, count in goods(placed) if wished == good)
        return max(wishes, default=0)


class Seat:
    """One model's access to the resources."""

    def __init__(self, limiter: RateLimiter, number: int, placed: Sequence[PlacedEngine], wake: Callable[[], None]) -> None:
        self._limiter = limiter
        self._number = number
        self.placed: tuple[PlacedEngine, ...] = tuple(placed)
        self.wake = wake
        self.priority = max((each.rate.priority for each in placed), default=1)

    def may_run(self, placed: PlacedEngine) -> bool:
        """Whether an instance may begin now; where not, the model is called when it may."""
        if not placed.rate.resources or self._limiter.may_run(placed):
            return True
        self._limiter.wait(self._number)
        return False

    def begin(self, placed: PlacedEngine) -> None:
        """An instance begins."""
        if placed.rate.resources:
            self._limiter.begin(self._number, placed)

    def end(self, placed: PlacedEngine, *, more: bool) -> None:
        """An instance ends; `more`: whether its model has further work, for which it waits its turn."""
        if placed.rate.resources:
            if more:
                self._limiter.wait(self._number)
            self._limiter.end(placed)

    def close(self) -> None:
        """The model is gone; may be told again."""
        self._limiter.close(self._number)
        self.placed = ()


def goods(placed: PlacedEngine) -> Iterator[tuple[_Good, int]]:
    """What an instance takes while it runs."""
    for resource, count in placed.rate.resources.items():
        yield (resource.name, "" if resource.shared else placed.device), count
