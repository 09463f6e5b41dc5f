"""Platforms whose own rows have the last word on a job: what they have to say again before its message is sent again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from bridge.database.port import Database
from bridge.records.consensus import ConsensusRecords
from bridge.systems.consensus.messages import SYSTEM as CONSENSUS

# Has the row of a job's key say that it is to be worked on; false where it says so, or cannot.
Requeue = Callable[[str], Awaitable[bool]]


def requeues(database: Database) -> Mapping[str, Requeue]:
    """By system. One without such rows is not in it."""

    async def requeue_run(key: str) -> bool:
        # Opened when it is asked for: not every database can hold its tables.
        return await ConsensusRecords(database).requeue(key)

    return {CONSENSUS: requeue_run}
