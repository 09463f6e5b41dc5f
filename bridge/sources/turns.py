"""Whose turn it is when a source has several queues: the urgent first, and none starves."""

from __future__ import annotations

from collections.abc import Sequence

# Whoever gives each message a priority of its own needs no turns.
_MOST_PRIORITIES = 256


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


class Urgencies:
    """Turns among the priorities of one queue, which are known only as they come: as `Turns`, with priorities for queues."""

    def __init__(self, *, in_a_row: int) -> None:
        self._in_a_row = in_a_row
        # Messages of each since the ones behind it had their turn.
        self._served: dict[int, int] = {}

    def ranges(self) -> list[tuple[int | None, int | None]]:
        """The priorities to look at now, as first and last, in order; empty when none has to wait. Those left out come after these."""
        sated = sorted(priority for priority, count in self._served.items() if count >= self._in_a_row)
        if not sated:
            return []
        # Nothing is more urgent than 0.
        starts, ends = [None, *(priority + 1 for priority in sated)], [*(priority - 1 for priority in sated), None]
        return [(first, last) for first, last in zip(starts, ends, strict=True) if last is None or last >= (first or 0)]

    def served(self, priority: int) -> None:
        """Note that a message of a priority was given. More urgent ones have waited for it, and begin anew."""
        before = self._served.get(priority, 0)
        self._served[priority] = 1 if before >= self._in_a_row else before + 1
        for urgent in [each for each, count in self._served.items() if each < priority and count >= self._in_a_row]:
            del self._served[urgent]
        if len(self._served) > _MOST_PRIORITIES:
            self._served.clear()
