"""How old the oldest message of a queue may be, told from what was received: for queues that do not tell it themselves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Freshness:
    """Queues give about the oldest first: what still waits was sent after what came last, and after the queue was last found empty."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since 1970."""
        self._clock = clock
        # When the newest message that came was sent, by queue.
        self._sent: dict[str, float] = {}
        self._empty_at: float | None = None

    def came(self, queue: str, sent_at: float) -> None:
        """A message came that was sent then."""
        self._sent[queue] = max(sent_at, self._sent.get(queue, 0.0))

    def nothing(self) -> None:
        """A poll found every queue empty."""
        self._empty_at = self._clock()

    def oldest(self, queue: str, *, waiting: float) -> float:
        """An upper bound of the oldest's age in seconds; 0 when nothing waits, NaN before anything was received."""
        if not waiting:
            return 0.0
        moments = [moment for moment in (self._sent.get(queue), self._empty_at) if moment is not None]
        return max(0.0, self._clock() - max(moments)) if moments else math.nan
