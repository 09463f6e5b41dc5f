"""Whose turn it is when a source has several queues: the urgent first, and none starves."""

from __future__ import annotations

from collections.abc import Sequence


class Turns:
    """Orders queues by urgency. A queue that has been served so often in a row lets the less urgent go first once."""

    def __init__(self, queues: Sequence[str], *, in_a_row: int) -> None:
        """`queues`: the most urgent first."""
        self._queues = tuple(queues)
        self._in_a_row = in_a_row
        # Messages of each since the ones behind it had their turn.
        self._served = dict.fromkeys(queues, 0)

    @property
    def most_urgent(self) -> str:
        """The first."""
        return self._queues[0]

    @property
    def several(self) -> bool:
        """Whether there are more than one."""
        return len(self._queues) > 1

    def order(self) -> list[str]:
        """The order in which to look at the queues now."""
        patient = [queue for queue in self._queues if self._served[queue] < self._in_a_row]
        sated = [queue for queue in self._queues if self._served[queue] >= self._in_a_row]
        return [*patient, *sated]

    def served(self, queue: str, count: int) -> None:
        """Note that a queue gave messages. Those before it have waited for it, and begin anew."""
        place = self._queues.index(queue)
        # One that was sated and served all the same: the others had nothing.
        before = 0 if self._served[queue] >= self._in_a_row else self._served[queue]
        self._served[queue] = before + count
        for urgent in self._queues[:place]:
            if self._served[urgent] >= self._in_a_row:
                self._served[urgent] = 0
