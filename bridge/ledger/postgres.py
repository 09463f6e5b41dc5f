"""The ledger in a PostgreSQL database. Each method is one statement, and so one transaction and one round trip."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge.database.port import Database
from bridge.errors import PermanentError
from bridge.job import Delivery, Job, Outcome, Progress
from bridge.ledger.port import Claim, DeadLetter, Refusal, State
from bridge.ledger.rows import (
    claim_of,
    end_values,
    event_values,
    job_values,
    letter_of,
    letter_values,
    lost,
    progress_values,
    storable,
)

_SQL = Path(__file__).parent / "sql"
_NO_LETTER = dict.fromkeys(("source", "queue", "message_id", "reason", "body", "attributes"))


class PostgresLedger:
    """Who works on which job."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = database.statements(_SQL, "jobs")

    async def claim(self, job: Job, *, worker: str, lease_seconds: float) -> Claim | Refusal:
        """Insert or take over the job's row when it is not terminal, is due, and its lease has run out; raise its fence."""
        values = {**job_values(job), "worker": worker, "lease": lease_seconds}
        while True:
            row = (await self._database.change(self._sql["claim"], values)).first
            if row is not None:
                return claim_of(job.key, row)
            row = (await self._database.look(self._sql["refusal"], {"key": job.key})).first
            if row is not None:  # else it was pruned in between
                return Refusal(state=State(row["state"]), retry_after=row["retry_after"])

    async def renew(self, claim: Claim, *, lease_seconds: float, progress: Progress | None = None) -> None:
        """Prolong the lease, and write how far the work is unless it was further. Raises `LeaseLostError`."""
        if progress is None:
            await self._change("renew", claim, lease=lease_seconds)
        else:
            await self._change("advance", claim, lease=lease_seconds, **progress_values(progress))

    async def checkpoint(self, claim: Claim, saved: Mapping[str, Any]) -> None:
        """Save what a later claim can go on from. Raises `LeaseLostError`."""
        await self._change("checkpoint", claim, checkpoint=json.dumps(saved))

    async def finish(self, claim: Claim, outcome: Outcome, *, buried: Delivery | None = None, reason: str = "") -> None:
        """End the job in one statement: its state, its result, its outbox, its dead letter. Raises `LeaseLostError`."""
        events = [event_values(event, claim.job_key) for event in outcome.events]
        letter = letter_values(buried, reason=reason) if buried else _NO_LETTER
        end = end_values(outcome, reason)
        values = {
            **end,
            "message_ids": [event["message_id"] for event in events],
            "types": [event["type"] for event in events],
            "destinations": [event["destination"] for event in events],
            "bodies": [event["body"] for event in events],
            "attributes": [event["attributes"] for event in events],
            **{f"letter_{name}": value for name, value in letter.items()},
        }
        holder = {"key": claim.job_key, "fence": claim.fence}
        found = await self._database.change(self._sql["finish"], {**holder, **values})
        if found.count == 0 and not (found.retried and await self._ended_by(holder, end["state"])):
            raise lost(claim)

    async def release(self, claim: Claim, *, delay_seconds: float = 0.0, error: str = "", count_attempt: bool = False) -> None:
        """Give the job back for a later try. Raises `LeaseLostError`."""
        state = State.WAITING if error or delay_seconds > 0 else State.QUEUED
        await self._change("release", claim, state=state.value, delay=delay_seconds, error=storable(error), counted=int(count_attempt))

    async def _ended_by(self, holder: Mapping[str, Any], state: str) -> bool:
        """Whether the first of two tries did end the job, and only its answer was lost."""
        return bool((await self._database.look(self._sql["ended_by"], {**holder, "state": state})).rows)

    async def _change(self, statement: str, claim: Claim, **values: Any) -> None:
        """Change the row of a running job, under its fence. Raises `LeaseLostError`."""
        found = await self._database.change(self._sql[statement], {"key": claim.job_key, "fence": claim.fence, **values})
        if found.count == 0:
            raise lost(claim)


class PostgresDeadLetters:
    """Messages that ended without a result."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = database.statements(_SQL, "dead_letters")

    async def bury(self, delivery: Delivery, *, reason: str) -> None:
        """Keep a message that cannot be read; burying the same message twice keeps one."""
        await self._database.change(self._sql["bury"], letter_values(delivery, reason=reason))

    async def list(self, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest first."""
        return [letter_of(row) for row in (await self._database.look(self._sql["list"], {"limit": limit})).rows]

    async def reopen(self, letter_id: int) -> DeadLetter:
        """Let the letter's job be claimed anew. Raises `PermanentError` when there is no such letter."""
        row = (await self._database.change(self._sql["reopen"], {"id": letter_id})).first
        if row is None:
            raise PermanentError(f"there is no dead letter {letter_id}")
        return letter_of(row)

    async def mark_replayed(self, letter_id: int) -> None:
        """Record that the bytes have been sent again."""
        await self._database.change(self._sql["mark_replayed"], {"id": letter_id})
