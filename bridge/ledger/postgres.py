"""The ledger in a PostgreSQL database. Each method is one statement, and so one transaction and one round trip.

Only writes on a platform's tables add statements to the transaction.

Claims that are asked for at the same time share one, and so do ends: each is decided under its own fence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.database.port import Database, Statement
from bridge.gathering import Gatherer
from bridge.job import Delivery, Job, Outcome, Progress, Write
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

_SQL = Path(__file__).parent / "sql"


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A claim that somebody wants."""

    job: Job
    worker: str
    # Seconds.
    lease: float


@dataclass(frozen=True, kw_only=True)
class _End:
    """The end of a job that somebody holds."""

    claim: Claim
    outcome: Outcome
    buried: Delivery | None
    reason: str


class PostgresLedger:
    """Who works on which job."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = database.statements(_SQL, "jobs")
        # Two of the same job never share a statement.
        self._claims: Gatherer[_Asked, Claim | Refusal] = Gatherer(self._claim_all, identity=lambda asked: asked.job.key)
        self._ends: Gatherer[_End, None] = Gatherer(self._finish_all, identity=lambda end: end.claim.job_key)

    async def claim(self, job: Job, *, worker: str, lease_seconds: float) -> Claim | Refusal:
        """Insert or take over the job's row when it is not terminal, is due, and its lease has run out; raise its fence."""
        return await self._claims.ask(_Asked(job=job, worker=worker, lease=lease_seconds))

    async def renew(self, claim: Claim, *, lease_seconds: float, progress: Progress | None = None) -> None:
        """Prolong the lease, and write how far the work is unless it was further. Raises `LeaseLostError`."""
        if progress is None:
            await self._change("renew", claim, lease=lease_seconds)
        else:
            await self._change("advance", claim, lease=lease_seconds, **progress_values(progress))

    async def checkpoint(self, claim: Claim, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> Claim:
        """Save what a later claim can go on from, and make the writes that belong to it, in one transaction. Raises `LeaseLostError`."""
        values = {"key": claim.job_key, "fence": claim.fence, "checkpoint": json.dumps(saved)}
        return counted_anew(claim, (await self._database.change(self._sql["checkpoint"], values, then=statements_of(writes))).first)

    async def finish(self, claim: Claim, outcome: Outcome, *, buried: Delivery | None = None, reason: str = "") -> None:
        """End the job in one transaction: its state, its result, its outbox, its dead letter, its writes. Raises `LeaseLostError`."""
        end = _End(claim=claim, outcome=outcome, buried=buried, reason=reason)
        if not outcome.writes:
            await self._ends.ask(end)
            return
        # Alone: a write that the platform's tables refuse is nobody else's fault.
        answer = (await self._finish_all([end], statements_of(outcome.writes)))[0]
        if answer is not None:
            raise answer

    async def release(self, claim: Claim, *, delay_seconds: float = 0.0, error: str = "", counted: Counted = Counted.SURVIVED) -> None:
        """Give the job back for a later try. Raises `LeaseLostError`."""
        await self._change("release", claim, **release_values(delay_seconds, error, counted))

    async def _claim_all(self, asked: Sequence[_Asked]) -> Sequence[Claim | Refusal]:
        answers: dict[str, Claim | Refusal] = {}
        wanted = list(asked)
        while wanted:
            rows = (await self._database.change(self._sql["claim"], _claim_values(wanted))).rows
            answers |= {row["key"]: claim_of(row["key"], row) for row in rows}
            refused = [one.job.key for one in wanted if one.job.key not in answers]
            if refused:
                rows = (await self._database.look(self._sql["refusal"], {"keys": json.dumps(refused), "suspect": SUSPECT_LOSSES})).rows
                answers |= {row["key"]: Refusal(state=State(row["state"]), retry_after=row["retry_after"]) for row in rows}
            wanted = [one for one in wanted if one.job.key not in answers]  # pruned in between
        return [answers[one.job.key] for one in asked]

    async def _finish_all(self, ends: Sequence[_End], then: Sequence[Statement] = ()) -> Sequence[Exception | None]:
        found = await self._database.change(self._sql["finish"], _end_values(ends), then=then)
        ended = {row["key"] for row in found.rows}
        answers: list[Exception | None] = []
        for end in ends:
            done = end.claim.job_key in ended or (found.retried and await self._ended_by(end))
            answers.append(None if done else lost(end.claim))
        return answers

    async def _ended_by(self, end: _End) -> bool:
        """Whether the first of two tries did end the job, and only its answer was lost."""
        state = end_values(end.outcome, end.reason)["state"]
        values = {"key": end.claim.job_key, "fence": end.claim.fence, "state": state}
        return bool((await self._database.look(self._sql["ended_by"], values)).rows)

    async def _change(self, statement: str, claim: Claim, **values: Any) -> None:
        """Change the row of a running job, under its fence. Raises `LeaseLostError`."""
        found = await self._database.change(self._sql[statement], {"key": claim.job_key, "fence": claim.fence, **values})
        if found.count == 0:
            raise lost(claim)


def _claim_values(asked: Sequence[_Asked]) -> dict[str, Any]:
    jobs = [{**job_values(one.job), "worker": one.worker, "lease": one.lease} for one in asked]
    return {"jobs": json.dumps(jobs), "suspect": SUSPECT_LOSSES}


def _end_values(ends: Sequence[_End]) -> dict[str, str]:
    jobs: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    letters: list[dict[str, Any]] = []
    for end in ends:
        key = end.claim.job_key
        jobs.append({"key": key, "fence": end.claim.fence, **end_values(end.outcome, end.reason)})
        for event in end.outcome.events:
            events.append({"key": key, "place": len(events), **event_values(event, key), "body": event.body.hex()})
        if end.buried:
            letters.append({"key": key, **letter_values(end.buried, reason=end.reason), "body": end.buried.body.hex()})
    return {"jobs": json.dumps(jobs), "events": json.dumps(events), "letters": json.dumps(letters)}
