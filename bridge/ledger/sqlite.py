"""The ledger in the embedded database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from bridge.database.engine import Database
from bridge.database.statements import load_statements
from bridge.errors import LeaseLostError, PermanentError
from bridge.job import Delivery, Job, Message, Outcome
from bridge.ledger.port import Backlog, Claim, DeadLetter, JobRecord, Refusal, State

_SQL = Path(__file__).parent / "sql" / "sqlite"
_JOBS = load_statements(_SQL / "jobs.sql")
_OUTBOX = load_statements(_SQL / "outbox.sql")
_DEAD_LETTERS = load_statements(_SQL / "dead_letters.sql")
# Sorts behind every key that starts the same.
_LAST_CHARACTER = "\U0010ffff"


class SqliteLedger:
    """Who works on which job."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, job: Job, *, worker: str, lease_seconds: float) -> Claim | Refusal:
        """Insert or take over the job's row when it is not terminal, is due, and its lease has run out; raise its fence."""
        async with self._database.write() as connection:
            values = {**_job_values(job), "worker": worker, "lease": lease_seconds}
            row = (await connection.execute(_JOBS["claim"], values)).mappings().first()
            if row is None:
                row = (await connection.execute(_JOBS["refusal"], {"key": job.key})).mappings().one()
                return Refusal(state=State(row["state"]), retry_after=row["retry_after"])
        return Claim(job_key=job.key, fence=row["fence"], attempts=row["attempts"], checkpoint=json.loads(row["checkpoint"]))

    async def renew(self, claim: Claim, *, lease_seconds: float, progress: float = 0.0, stage: str = "") -> None:
        """Prolong the lease. Raises `LeaseLostError`."""
        async with self._database.write() as connection:
            await _change(connection, "renew", claim, lease=lease_seconds, progress=progress, stage=stage)

    async def checkpoint(self, claim: Claim, saved: Mapping[str, Any]) -> None:
        """Save what a later claim can go on from. Raises `LeaseLostError`."""
        async with self._database.write() as connection:
            await _change(connection, "checkpoint", claim, checkpoint=json.dumps(saved))

    async def finish(self, claim: Claim, outcome: Outcome, *, buried: Delivery | None = None, reason: str = "") -> None:
        """End the job in one transaction: its state, its result, its outbox, its dead letter. Raises `LeaseLostError`."""
        state = State.SUCCEEDED if outcome.succeeded else State.FAILED
        error = "" if outcome.succeeded else reason or str(outcome.result.get("reason") or outcome.result.get("error") or "")
        async with self._database.write() as connection:
            await _change(connection, "finish", claim, state=state.value, result=json.dumps(outcome.result), error=error)
            for event in outcome.events:
                values = {
                    "message_id": event.message_id(claim.job_key),
                    "job_key": claim.job_key,
                    "type": event.type,
                    "destination": event.destination,
                    "body": event.body,
                    "attributes": json.dumps(dict(event.attributes)),
                }
                await connection.execute(_OUTBOX["add"], values)
            if buried is not None:
                await connection.execute(_DEAD_LETTERS["bury"], _letter_values(buried, job_key=claim.job_key, reason=reason))

    async def release(self, claim: Claim, *, delay_seconds: float = 0.0, error: str = "", count_attempt: bool = False) -> None:
        """Give the job back for a later try. Raises `LeaseLostError`."""
        state = State.WAITING if error or delay_seconds > 0 else State.QUEUED
        async with self._database.write() as connection:
            await _change(connection, "release", claim, state=state.value, delay=delay_seconds, error=error, counted=int(count_attempt))


class SqliteOutbox:
    """Messages that are committed and not yet sent."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, *, limit: int, lease_seconds: float) -> Sequence[Message]:
        """Take messages that are due and that no other relay holds, oldest first."""
        async with self._database.read() as connection:
            if (await connection.execute(_OUTBOX["due"])).first() is None:
                return ()
        async with self._database.write() as connection:
            rows = (await connection.execute(_OUTBOX["take"], {"limit": limit, "lease": lease_seconds})).mappings().all()
        return [_message(row) for row in sorted(rows, key=lambda row: row["id"])]

    async def mark_sent(self, message_id: str) -> None:
        """Record that a message has arrived at its sink."""
        async with self._database.write() as connection:
            await connection.execute(_OUTBOX["mark_sent"], {"message_id": message_id})

    async def postpone(self, message_id: str, *, delay_seconds: float, error: str) -> None:
        """Record that a try to send failed."""
        async with self._database.write() as connection:
            await connection.execute(_OUTBOX["postpone"], {"message_id": message_id, "delay": delay_seconds, "error": error})

    async def backlog(self) -> Backlog:
        """How much is still to be sent, taken messages included."""
        async with self._database.read() as connection:
            row = (await connection.execute(_OUTBOX["backlog"])).mappings().one()
        return Backlog(depth=row["depth"], oldest_age=row["oldest_age"])


class SqliteDeadLetters:
    """Messages that ended without a result."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def bury(self, delivery: Delivery, *, reason: str) -> None:
        """Keep a message that cannot be read; burying the same message twice keeps one."""
        async with self._database.write() as connection:
            await connection.execute(_DEAD_LETTERS["bury"], _letter_values(delivery, job_key="", reason=reason))

    async def list(self, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest first."""
        async with self._database.read() as connection:
            rows = (await connection.execute(_DEAD_LETTERS["list"], {"limit": limit})).mappings().all()
        return [_letter(row) for row in rows]

    async def reopen(self, letter_id: int) -> DeadLetter:
        """Let the letter's job be claimed anew. Raises `PermanentError` when there is no such letter."""
        async with self._database.write() as connection:
            row = (await connection.execute(_DEAD_LETTERS["find"], {"id": letter_id})).mappings().first()
            if row is None:
                raise PermanentError(f"there is no dead letter {letter_id}")
            await connection.execute(_JOBS["reopen"], {"key": row["job_key"]})
        return _letter(row)

    async def mark_replayed(self, letter_id: int) -> None:
        """Record that the bytes have been sent again."""
        async with self._database.write() as connection:
            await connection.execute(_DEAD_LETTERS["mark_replayed"], {"id": letter_id})


class SqliteJobs:
    """What people and programs ask about jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def announce(self, job: Job) -> None:
        """Record a job as queued; harmless when it is known."""
        async with self._database.write() as connection:
            await connection.execute(_JOBS["announce"], _job_values(job))

    async def find(self, key_prefix: str) -> JobRecord | None:
        """The one job whose key starts so; None when none does, or several do."""
        async with self._database.read() as connection:
            bounds = {"first": key_prefix, "last": key_prefix + _LAST_CHARACTER}
            rows = (await connection.execute(_JOBS["find"], bounds)).mappings().all()
        if len(rows) == 1 or (rows and rows[0]["key"] == key_prefix):
            return _record(rows[0])
        return None

    async def list(self, *, limit: int = 50, state: State | None = None) -> Sequence[JobRecord]:
        """The newest first."""
        async with self._database.read() as connection:
            values = {"limit": limit, "state": state.value if state else None}
            rows = (await connection.execute(_JOBS["list"], values)).mappings().all()
        return [_record(row) for row in rows]


async def _change(connection: AsyncConnection, statement: str, claim: Claim, **values: Any) -> None:
    """Change the row of a running job, under its fence. Raises `LeaseLostError`, which rolls everything back."""
    result = await connection.execute(_JOBS[statement], {"key": claim.job_key, "fence": claim.fence, **values})
    if result.rowcount == 0:
        raise LeaseLostError(f"the job {claim.job_key} is no longer ours (fence {claim.fence})")


def _job_values(job: Job) -> dict[str, Any]:
    return {
        "key": job.key,
        "system": job.system,
        "request": json.dumps(dict(job.request)),
        "reply_queue": job.reply_queue,
        "priority": job.priority,
    }


def _letter_values(delivery: Delivery, *, job_key: str, reason: str) -> dict[str, Any]:
    return {
        "source": delivery.source,
        "queue": delivery.queue,
        "message_id": delivery.message_id,
        "job_key": job_key,
        "reason": reason,
        "body": delivery.body,
        "attributes": json.dumps(dict(delivery.attributes)),
    }


def _message(row: RowMapping) -> Message:
    return Message(
        message_id=row["message_id"],
        job_key=row["job_key"],
        type=row["type"],
        destination=row["destination"],
        body=bytes(row["body"]),
        attributes=json.loads(row["attributes"]),
        attempts=row["attempts"],
    )


def _letter(row: RowMapping) -> DeadLetter:
    return DeadLetter(**{**row, "body": bytes(row["body"]), "attributes": json.loads(row["attributes"])})


def _record(row: RowMapping) -> JobRecord:
    result = json.loads(row["result"]) if row["result"] else None
    return JobRecord(**{**row, "state": State(row["state"]), "request": json.loads(row["request"]), "result": result})
