"""The ledger in the embedded database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from bridge.database.sqlite import SqliteDatabase
from bridge.database.statements import load_statements
from bridge.errors import PermanentError
from bridge.job import Delivery, Job, Message, Outcome
from bridge.ledger.port import Backlog, Claim, DeadLetter, JobRecord, Refusal, State
from bridge.ledger.rows import (
    claim_of,
    end_values,
    event_values,
    job_values,
    letter_of,
    letter_values,
    lost,
    message_of,
    only_record,
    prefix_bounds,
    record_of,
    storable,
)

_SQL = Path(__file__).parent / "sql" / "sqlite"
_JOBS = load_statements(_SQL / "jobs.sql")
_OUTBOX = load_statements(_SQL / "outbox.sql")
_DEAD_LETTERS = load_statements(_SQL / "dead_letters.sql")
_PRUNING = load_statements(_SQL / "pruning.sql")


class SqliteLedger:
    """Who works on which job."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def claim(self, job: Job, *, worker: str, lease_seconds: float) -> Claim | Refusal:
        """Insert or take over the job's row when it is not terminal, is due, and its lease has run out; raise its fence."""
        async with self._database.write() as connection:
            values = {**job_values(job), "worker": worker, "lease": lease_seconds}
            row = (await connection.execute(_JOBS["claim"], values)).mappings().first()
            if row is None:
                row = (await connection.execute(_JOBS["refusal"], {"key": job.key})).mappings().one()
                return Refusal(state=State(row["state"]), retry_after=row["retry_after"])
        return claim_of(job.key, row)

    async def renew(self, claim: Claim, *, lease_seconds: float, progress: float = 0.0, stage: str = "") -> None:
        """Prolong the lease. Raises `LeaseLostError`."""
        async with self._database.write() as connection:
            await _change(connection, "renew", claim, lease=lease_seconds, progress=progress, stage=storable(stage))

    async def checkpoint(self, claim: Claim, saved: Mapping[str, Any]) -> None:
        """Save what a later claim can go on from. Raises `LeaseLostError`."""
        async with self._database.write() as connection:
            await _change(connection, "checkpoint", claim, checkpoint=json.dumps(saved))

    async def finish(self, claim: Claim, outcome: Outcome, *, buried: Delivery | None = None, reason: str = "") -> None:
        """End the job in one transaction: its state, its result, its outbox, its dead letter. Raises `LeaseLostError`."""
        async with self._database.write() as connection:
            await _change(connection, "finish", claim, **end_values(outcome, reason))
            for event in outcome.events:
                values = {**event_values(event, claim.job_key), "job_key": claim.job_key}
                await connection.execute(_OUTBOX["add"], values)
            if buried is not None:
                values = {**letter_values(buried, reason=reason), "job_key": claim.job_key}
                await connection.execute(_DEAD_LETTERS["bury"], values)

    async def release(self, claim: Claim, *, delay_seconds: float = 0.0, error: str = "", count_attempt: bool = False) -> None:
        """Give the job back for a later try. Raises `LeaseLostError`."""
        state = State.WAITING if error or delay_seconds > 0 else State.QUEUED
        async with self._database.write() as connection:
            await _change(
                connection, "release", claim, state=state.value, delay=delay_seconds, error=storable(error), counted=int(count_attempt)
            )


class SqliteOutbox:
    """Messages that are committed and not yet sent."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def take(self, *, limit: int, lease_seconds: float) -> Sequence[Message]:
        """Take messages that are due and that no other relay holds, oldest first."""
        async with self._database.read() as connection:
            if (await connection.execute(_OUTBOX["due"])).first() is None:
                return ()
        async with self._database.write() as connection:
            rows = (await connection.execute(_OUTBOX["take"], {"limit": limit, "lease": lease_seconds})).mappings().all()
        return [message_of(row) for row in sorted(rows, key=lambda row: row["id"])]

    async def mark_sent(self, message_id: str) -> None:
        """Record that a message has arrived at its sink."""
        async with self._database.write() as connection:
            await connection.execute(_OUTBOX["mark_sent"], {"message_id": message_id})

    async def postpone(self, message_id: str, *, delay_seconds: float, error: str) -> None:
        """Record that a try to send failed."""
        async with self._database.write() as connection:
            await connection.execute(_OUTBOX["postpone"], {"message_id": message_id, "delay": delay_seconds, "error": storable(error)})

    async def backlog(self) -> Backlog:
        """How much is still to be sent, taken messages included."""
        async with self._database.read() as connection:
            row = (await connection.execute(_OUTBOX["backlog"])).mappings().one()
        return Backlog(depth=row["depth"], oldest_age=row["oldest_age"])


class SqliteDeadLetters:
    """Messages that ended without a result."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def bury(self, delivery: Delivery, *, reason: str) -> None:
        """Keep a message that cannot be read; burying the same message twice keeps one."""
        async with self._database.write() as connection:
            await connection.execute(_DEAD_LETTERS["bury"], {**letter_values(delivery, reason=reason), "job_key": ""})

    async def list(self, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest first."""
        async with self._database.read() as connection:
            rows = (await connection.execute(_DEAD_LETTERS["list"], {"limit": limit})).mappings().all()
        return [letter_of(row) for row in rows]

    async def reopen(self, letter_id: int) -> DeadLetter:
        """Let the letter's job be claimed anew. Raises `PermanentError` when there is no such letter."""
        async with self._database.write() as connection:
            row = (await connection.execute(_DEAD_LETTERS["find"], {"id": letter_id})).mappings().first()
            if row is None:
                raise PermanentError(f"there is no dead letter {letter_id}")
            await connection.execute(_JOBS["reopen"], {"key": row["job_key"]})
        return letter_of(row)

    async def mark_replayed(self, letter_id: int) -> None:
        """Record that the bytes have been sent again."""
        async with self._database.write() as connection:
            await connection.execute(_DEAD_LETTERS["mark_replayed"], {"id": letter_id})


class SqliteJobs:
    """What people and programs ask about jobs."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def announce(self, job: Job) -> None:
        """Record a job as queued; harmless when it is known."""
        async with self._database.write() as connection:
            await connection.execute(_JOBS["announce"], job_values(job))

    async def find(self, key_prefix: str) -> JobRecord | None:
        """The one job whose key starts so; None when none does, or several do."""
        async with self._database.read() as connection:
            rows = (await connection.execute(_JOBS["find"], prefix_bounds(key_prefix))).mappings().all()
        return only_record(rows, key_prefix)

    async def list(self, *, limit: int = 50, state: State | None = None) -> Sequence[JobRecord]:
        """The newest first."""
        async with self._database.read() as connection:
            values = {"limit": limit, "state": state.value if state else None}
            rows = (await connection.execute(_JOBS["list"], values)).mappings().all()
        return [record_of(row) for row in rows]


class SqlitePruner:
    """Takes away what nobody will ask for any more."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def prune(self, *, keep_seconds: float, limit: int = 500) -> int:
        """Remove what ended longer ago, at most `limit` rows of each kind; returns how many."""
        found = 0
        for statement in _PRUNING.values():
            found += (await self._database.change(statement, {"keep": keep_seconds, "limit": limit})).count
        return found


async def _change(connection: AsyncConnection, statement: str, claim: Claim, **values: Any) -> None:
    """Change the row of a running job, under its fence. Raises `LeaseLostError`, which rolls everything back."""
    result = await connection.execute(_JOBS[statement], {"key": claim.job_key, "fence": claim.fence, **values})
    if result.rowcount == 0:
        raise lost(claim)
