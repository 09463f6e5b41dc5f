"""When an instance starts, and with which requests."""

from __future__ import annotations

from dataclasses import dataclass

from inference_server.models.values import Batching
from inference_server.scheduler.dispatch.queue import WaitingLine
from inference_server.scheduler.dispatch.work import Work


@dataclass(frozen=True, kw_only=True)
class Formed:
    """What an idle instance is to do now."""

    # To be run; empty when there is nothing yet.
    batch: tuple[Work, ...] = ()
    # `time.monotonic()` at which to look again; None when only a new request changes anything.
    again_at: float | None = None


class Batcher:
    """Forms batches for one model.

    Work-conserving: it gives an idle instance what there is, and full batches come about while all instances are busy. Only a
    model whose owner sets `max_queue_delay_microseconds` waits for a fuller batch, or for one of the preferred sizes.

    Callers that send their next request when they are answered would come in a large and a small batch by turns, of which the
    small one costs more a row. Where about as many wait and are about to return as the last time, they are such, and half go at a time.
    """

    def __init__(self, batching: Batching, *, max_batch_size: int) -> None:
        self._batching = batching
        # Requests without a batch dimension are run one at a time.
        self._most = max(1, max_batch_size)
        # Rows that waited and were about to return when the last long run ended.
        self._rows = 0
        # Whether nothing is waited for.
        self._at_once = not batching.max_delay_seconds and not batching.preferred_sizes

    def form(self, line: WaitingLine, now: float, *, returning: int = 0, share: int = 0) -> Formed:
        """Take the next batch out of the line, or tell when to look again.

        `returning`: rows of a long run that has just ended, whose callers may be back before the next one has. `share`: rows to be
        taken now of a model that waits for nothing, by one of two batches that together are no more than one; 0 for what one may have.
        """
        if share:
            return Formed(batch=tuple(line.take(line.buckets()[0], min(share, self._most // 2))))
        half = 0
        if self._at_once and (rows := line.rows_of_all()):
            half = self._half(rows, returning)
            if rows <= half:
                return Formed(batch=line.take_all())
        again_at: float | None = None
        for bucket in line.buckets():
            rows = line.rows(bucket)
            room = self._room(rows)
            if self._at_once and returning:
                room = half or self._half(rows, returning)
            ready_at = now if room else line.oldest(bucket).admitted + self._batching.max_delay_seconds
            if ready_at <= now:
                # A request that is larger than the preferred size goes all the same, when its turn comes.
                room = max(room, line.next(bucket).rows) if room else self._most
                return Formed(batch=tuple(line.take(bucket, room)))
            again_at = ready_at if again_at is None else min(again_at, ready_at)
        return Formed(again_at=again_at)

    def _half(self, rows: int, returning: int) -> int:
        """Rows of the batch that may start now of a model that waits for nothing: half where callers come and go together."""
        if returning and self._is_steady(rows + returning) and rows < self._most:
            return (rows + returning + 1) // 2
        return self._most

    def _is_steady(self, rows: int) -> bool:
        """Whether about as many rows wait and are about to return as when the last long run ended."""
        last, self._rows = self._rows, rows
        return abs(rows - last) <= rows // 8

    def _room(self, rows: int) -> int:
        """Rows of the batch that may start now; 0 when it should wait for more."""
        if rows >= self._most and not self._batching.preferred_sizes:
            return self._most
        preferred = [size for size in self._batching.preferred_sizes if size <= rows]
        if preferred:
            return preferred[-1]
        return 0 if self._batching.max_delay_seconds else self._most
