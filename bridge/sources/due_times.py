"""When what waits in queues is due."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


class DueTimes:
    """When the next of each queue may be due, by the loop's clock, as looks find it and as is known of what was given back meanwhile."""

    def __init__(self, queues: Sequence[str]) -> None:
        self._due = dict.fromkeys(queues, float("inf"))
        self._sooner: asyncio.Future[None] | None = None

    @property
    def next(self) -> float:
        """Of all queues; infinite where nothing is known to be due."""
        return min(self._due.values())

    @property
    def sooner(self) -> asyncio.Future[None]:
        """Done when something was given back that is due sooner than was known when this was asked for."""
        if self._sooner is None or self._sooner.done():
            self._sooner = asyncio.get_running_loop().create_future()
        return self._sooner

    def look_begins(self, queue: str) -> None:
        """Forget what was known: the look finds it. What is given back from now on it may miss."""
        self._due[queue] = float("inf")

    def found(self, queue: str, due: float) -> None:
        """What the look has found."""
        self._due[queue] = min(self._due[queue], due)

    def given_back(self, queue: str, due: float) -> None:
        """To be told when the queue has it: a look that began before may have missed it."""
        if due < self._due[queue]:
            self._due[queue] = due
            if self._sooner is not None and not self._sooner.done():
                self._sooner.set_result(None)
