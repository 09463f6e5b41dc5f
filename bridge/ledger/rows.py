"""What the ledgers' adapters share: values to rows, and rows to values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy import RowMapping, TextClause, text

from bridge.database.port import Statement
from bridge.database.text import storable_text
from bridge.errors import LeaseLostError
from bridge.job import Delivery, Event, Job, Message, Outcome, Progress, Write
from bridge.ledger.port import Claim, Counted, DeadLetter, JobRecord, State

# Sorts behind every key that starts the same.
_LAST_CHARACTER = "\U0010ffff"


def job_values(job: Job) -> dict[str, Any]:
    """The columns that a job fills."""
    return {
        "key": job.key,
        "system": job.system,
        "request": json.dumps(dict(job.request)),
        "reply_queue": storable_text(job.reply_queue),
        "priority": job.priority,
        "trace": json.dumps(dict(job.trace)) if job.trace else "",
    }


def end_values(outcome: Outcome, reason: str) -> dict[str, Any]:
    """What the end of a job writes into its row."""
    state = State.SUCCEEDED if outcome.succeeded else State.FAILED
    error = "" if outcome.succeeded else reason or str(outcome.result.get("reason") or outcome.result.get("error") or "")
    return {"state": state.value, "result": json.dumps(outcome.result), "error": storable_text(error)}


def release_values(delay_seconds: float, error: str, counted: Counted) -> dict[str, Any]:
    """What the return of a job writes into its row."""
    state = State.WAITING if error or delay_seconds > 0 else State.QUEUED
    return {
        "state": state.value,
        "delay": delay_seconds,
        "error": storable_text(error),
        "counted": int(counted is Counted.ATTEMPT),
        "unproved": int(counted in (Counted.NOT_TRIED, Counted.SERVER_LOST)),
        "lost": int(counted is Counted.SERVER_LOST),
    }


def statements_of(writes: Sequence[Write]) -> Sequence[Statement]:
    """Writes as the database takes them."""
    return [(_clause(write.statement), write.values) for write in writes]


@lru_cache(maxsize=256)
def _clause(statement: str) -> TextClause:
    # Made once, so that SQLAlchemy finds again what it has compiled.
    return text(statement)


def progress_values(progress: Progress) -> dict[str, Any]:
    """The columns that tell how far a job is."""
    units = progress.units
    return {
        "progress": progress.share,
        "stage": storable_text(progress.stage),
        "units_done": units.done,
        "units_total": units.total,
        "units_per_second": units.per_second,
        "seconds_left": units.seconds_left,
    }


def event_values(event: Event, job_key: str) -> dict[str, Any]:
    """The columns of the outbox that an event fills, but for its job's key."""
    return {
        "message_id": event.message_id(job_key),
        "type": event.type,
        "destination": event.destination,
        "body": event.body,
        "attributes": json.dumps(dict(event.attributes)),
    }


def letter_values(delivery: Delivery, *, reason: str) -> dict[str, Any]:
    """The columns that a dead letter fills, but for its job's key."""
    return {
        "source": delivery.source,
        "queue": delivery.queue,
        "message_id": delivery.message_id,
        "reason": storable_text(reason),
        "body": delivery.body,
        "attributes": json.dumps(dict(delivery.attributes)),
    }


def claim_of(job_key: str, row: RowMapping) -> Claim:
    """A claim's row as its value."""
    return Claim(
        job_key=job_key,
        fence=row["fence"],
        attempts=row["attempts"],
        interruptions=row["interruptions"],
        server_losses=row["server_losses"],
        age=max(0.0, row["age"]),
        checkpoint=json.loads(row["checkpoint"]),
        trace=json.loads(row["trace"]) if row["trace"] else {},
    )


def counted_anew(claim: Claim, row: RowMapping | None) -> Claim:
    """A claim with what its row counts now. Raises `LeaseLostError` when there is none."""
    if row is None:
        raise lost(claim)
    return replace(claim, interruptions=row["interruptions"], server_losses=row["server_losses"])


def message_of(row: RowMapping) -> Message:
    """A row of the outbox as its value."""
    return Message(
        message_id=row["message_id"],
        job_key=row["job_key"],
        type=row["type"],
        destination=row["destination"],
        body=bytes(row["body"]),
        attributes=json.loads(row["attributes"]),
        attempts=row["attempts"],
        asked_at=row["created_at"],
    )


def letter_of(row: RowMapping) -> DeadLetter:
    """A dead letter's row as its value."""
    return DeadLetter(**{**row, "body": bytes(row["body"]), "attributes": json.loads(row["attributes"])})


def record_of(row: RowMapping) -> JobRecord:
    """A job's row as its value."""
    result = json.loads(row["result"]) if row["result"] else None
    return JobRecord(**{**row, "state": State(row["state"]), "request": json.loads(row["request"]), "result": result})


def prefix_bounds(key_prefix: str) -> dict[str, str]:
    """The first and the last key that start so."""
    return {"first": storable_text(key_prefix), "last": storable_text(key_prefix) + _LAST_CHARACTER}


def only_record(rows: Sequence[RowMapping], key_prefix: str) -> JobRecord | None:
    """The job that a prefix names; of several, the one whose key it is."""
    if len(rows) == 1 or (rows and rows[0]["key"] == key_prefix):
        return record_of(rows[0])
    return None


def lost(claim: Claim) -> LeaseLostError:
    """What a write under an old fence ends with."""
    return LeaseLostError(f"the job {claim.job_key} is no longer ours (fence {claim.fence})")
