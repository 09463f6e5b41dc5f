"""The ledger in the embedded database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from bridge.database.sqlite import SqliteDatabase, follow
from bridge.database.statements import load_statements
from bridge.job import Delivery, Job, Message, Outcome, Progress, Write
from bridge.ledger.either import LedgerOutbox
from bridge.ledger.port import SUSPECT_LOSSES, Claim, Counted, Refusal, State
from bridge.ledger.rows import (
    claim_of,
    counted_anew,
    end_values,
    event_values,
    job_values,
    letter_values,
    lost,
    progress_values,
    release_values,
    statements_of,
)

_SQL = Path(__file__).parent / "sql" / "sqlite"
_JOBS = load_statements(_SQL / "jobs.sql")
_OUTBOX = load_statements(_SQL / "outbox.sql")
_DEAD_LETTERS = load_statements(_SQL / "dead_letters.sql")


class SqliteLedger:
    """Who works on which job."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def claim(self, job: Job, *, worker: str, lease_seconds: float) -> Claim | Refusal:
        """Insert or take over the job's row when it is not terminal, is due, and its lease has run out; raise its fence."""
        async with self._database.write() as connection:
            values = {**job_values(job), "worker": worker, "lease": lease_seconds, "suspect": SUSPECT_LOSSES}
            row = (await connection.execute(_JOBS["claim"], values)).mappings().first()
            if row is None:
                row = (await connection.execute(_JOBS["refusal"], {"key": job.key, "suspect": SUSPECT_LOSSES})).mappings().one()
                return Refusal(state=State(row["state"]), retry_after=row["retry_after"])
        return claim_of(job.key, row)

    async def renew(self, claim: Claim, *, lease_seconds: float, progress: Progress | None = None) -> None:
        """Prolong the lease, and write how far the work is unless it was further. Raises `LeaseLostError`."""
        async with self._database.write() as connection:
            if progress is None:
                await _change(connection, "renew", claim, lease=lease_seconds)
            else:
                await _change(connection, "advance", claim, lease=lease_seconds, **progress_values(progress))

    async def checkpoint(self, claim: Claim, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> Claim:
        """Save what a later claim can go on from, and make the writes that belong to it, in one transaction. Raises `LeaseLostError`."""
        values = {"key": claim.job_key, "fence": claim.fence, "checkpoint": json.dumps(saved)}
        async with self._database.write() as connection:
            found = counted_anew(claim, (await connection.execute(_JOBS["checkpoint"], values)).mappings().first())
            await follow(connection, statements_of(writes))
        return found

    async def finish(self, claim: Claim, outcome: Outcome, *, buried: Delivery | None = None, reason: str = "") -> None:
        """End the job in one transaction: its state, its result, its outbox, its dead letter, its writes. Raises `LeaseLostError`."""
        async with self._database.write() as connection:
            await _change(connection, "finish", claim, **end_values(outcome, reason))
            for event in outcome.events:
                values = {**event_values(event, claim.job_key), "job_key": claim.job_key}
                await connection.execute(_OUTBOX["add"], values)
            if buried is not None:
                values = {**letter_values(buried, reason=reason), "job_key": claim.job_key}
                await connection.execute(_DEAD_LETTERS["bury"], values)
            await follow(connection, statements_of(outcome.writes))

    async def release(self, claim: Claim, *, delay_seconds: float = 0.0, error: str = "", counted: Counted = Counted.SURVIVED) -> None:
        """Give the job back for a later try. Raises `LeaseLostError`."""
        async with self._database.write() as connection:
            await _change(connection, "release", claim, **release_values(delay_seconds, error, counted))


class SqliteOutbox(LedgerOutbox):
    """Messages that are committed and not yet sent."""

    async def take(self, *, limit: int, lease_seconds: float) -> Sequence[Message]:
        """Take messages that are due and that no other relay holds, oldest first. While none is due, no write lock is asked for."""
        if not (await self._database.look(self._sql["due"])).rows:
            return ()
        return await super().take(limit=limit, lease_seconds=lease_seconds)


async def _change(connection: AsyncConnection, statement: str, claim: Claim, **values: Any) -> None:
    """Change the row of a running job, under its fence. Raises `LeaseLostError`, which rolls everything back."""
    result = await connection.execute(_JOBS[statement], {"key": claim.job_key, "fence": claim.fence, **values})
    if result.rowcount == 0:
        raise lost(claim)
