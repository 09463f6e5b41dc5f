"""Two batches side by side, on one core each, where an instance has two cores and much waits for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from inference_server.engine.port import RunsBeside
from inference_server.scheduler.dispatch.executor import PlacedEngine
from inference_server.scheduler.dispatch.queue import WaitingLine
from inference_server.scheduler.dispatch.work import Work
from inference_server.scheduler.loading.loader import LoadedModel

# Batches to which the rows that wait, run or are about to return are shared out: two run while the next two gather.
_BATCHES = 4
# Of a batch that is worth a core; a request of more is a large one.
_LEAST_ROWS = 8


def placed_beside(loaded: LoadedModel) -> PlacedEngine | None:
    """What runs the second batch of a model's only instance; None where it runs one at a time."""
    facts, first = loaded.facts, loaded.placed[0]
    waits = facts.batching.max_delay_seconds or facts.batching.preferred_sizes
    if len(loaded.placed) > 1 or first.rate.resources or waits or facts.max_batch_size < 2 * _LEAST_ROWS:
        return None
    engine = first.engine.beside() if isinstance(first.engine, RunsBeside) else None
    return replace(first, engine=engine) if engine else None


def share_of(line: WaitingLine, others: Collection[Work]) -> int:
    """Rows of each batch where two run side by side; 0 while one batch is to have both cores.

    Both cores answer one batch soonest, and more requests when none waits for the other at each operator. A large request gets both.
    `others`: what runs, or has just ended so that its callers may return.
    """
    rows = line.all_rows() + sum(work.rows for work in others)
    if rows < _BATCHES * _LEAST_ROWS or max(line.most_rows(), *(work.rows for work in others), 0) > _LEAST_ROWS:
        return 0
    return -(-rows // _BATCHES)


def may_join(share: int, running: int) -> bool:
    """Whether a second batch may begin beside one of so many rows: not where that one took most of what there is."""
    return 0 < running <= _BATCHES // 2 * share
