"""What is the same in either database, but for the SQL: each method is one statement, which calls at the same time may share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bridge.database.port import Database
from bridge.database.text import storable_text
from bridge.errors import PermanentError
from bridge.gathering import Gatherer
from bridge.job import Delivery, Event, Job, Message
from bridge.ledger.port import Backlog, DeadLetter, JobRecord, State
from bridge.ledger.rows import job_values, letter_of, letter_values, message_of, only_record, prefix_bounds, record_of

_SQL = Path(__file__).parent / "sql"


class LedgerOutbox:
    """Messages that are committed and not yet sent."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = database.statements(_SQL, "outbox")
        self._marks: Gatherer[str, None] = Gatherer(self._mark_all)

    async def take(self, *, limit: int, lease_seconds: float) -> Sequence[Message]:
        """Take messages that are due and that no other relay holds, oldest first."""
        found = await self._database.change(self._sql["take"], {"limit": limit, "lease": lease_seconds})
        return [message_of(row) for row in sorted(found.rows, key=lambda row: row["id"])]

    async def mark_sent(self, message_id: str) -> None:
        """Record that a message has arrived at its sink."""
        await self._marks.ask(message_id)

    async def postpone(self, message_id: str, *, delay_seconds: float, error: str) -> None:
        """Record that a try to send failed."""
        values = {"message_id": message_id, "delay": delay_seconds, "error": storable_text(error)}
        await self._database.change(self._sql["postpone"], values)

    async def backlog(self) -> Backlog:
        """How much is still to be sent, taken messages included."""
        [row] = (await self._database.look(self._sql["backlog"])).rows
        return Backlog(depth=row["depth"], oldest_age=row["oldest_age"])

    async def _mark_all(self, message_ids: Sequence[str]) -> Sequence[None]:
        await self._database.change(self._sql["mark_sent"], {"message_ids": json.dumps(message_ids)})
        return [None] * len(message_ids)


class LedgerJobs:
    """What people and programs ask about jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = database.statements(_SQL, "jobs")

    async def announce(self, job: Job) -> None:
        """Record a job as queued; harmless when it is known."""
        await self._database.change(self._sql["announce"], job_values(job))

    async def find(self, key_prefix: str) -> JobRecord | None:
        """The one job whose key starts so; None when none does, or several do."""
        return only_record((await self._database.look(self._sql["find"], prefix_bounds(key_prefix))).rows, key_prefix)

    async def find_open(self, key_prefix: str) -> JobRecord | None:
        """The newest job whose key starts so and that has not ended; None when there is none."""
        row = (await self._database.look(self._sql["find_open"], prefix_bounds(key_prefix))).first
        return None if row is None else record_of(row)

    async def reopen(self, key: str, *, ended: bool = False) -> bool:
        """Let a failed job be claimed anew; false when it has not failed. `ended`: one that succeeded too."""
        told = Event(type="failed", destination="", body=b"").message_id(key)
        forget = (self._sql["forget_sent"], {"message_id": told})
        return (await self._database.change(self._sql["reopen"], {"key": key, "ended": int(ended)}, then=[forget])).count > 0

    async def list(self, *, limit: int = 50, state: State | None = None) -> Sequence[JobRecord]:
        """The newest first."""
        values = {"limit": limit, "state": state.value if state else None}
        return [record_of(row) for row in (await self._database.look(self._sql["list"], values)).rows]


class LedgerDeadLetters:
    """Messages that ended without a result."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = database.statements(_SQL, "dead_letters")
        self._jobs = LedgerJobs(database)

    async def bury(self, delivery: Delivery, *, reason: str) -> None:
        """Keep a message that cannot be read; burying the same message twice keeps one."""
        await self._database.change(self._sql["bury"], {**letter_values(delivery, reason=reason), "job_key": ""})

    async def reopen(self, letter_id: int) -> DeadLetter:
        """Let the letter's job be claimed anew. Raises `PermanentError` when there is no such letter."""
        row = (await self._database.look(self._sql["find"], {"id": letter_id})).first
        if row is None:
            raise PermanentError(f"there is no dead letter {letter_id}")
        await self._jobs.reopen(row["job_key"])
        return letter_of(row)

    async def mark_replayed(self, letter_id: int) -> None:
        """Record that the bytes have been sent again."""
        await self._database.change(self._sql["mark_replayed"], {"id": letter_id})

    async def waiting(self) -> int:
        """How many nobody has replayed."""
        [row] = (await self._database.look(self._sql["waiting"])).rows
        return int(row["letters"])

    async def list(self, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest first."""
        return [letter_of(row) for row in (await self._database.look(self._sql["list"], {"limit": limit})).rows]


class LedgerPruner:
    """Takes away what nobody will ask for any more."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = database.statements(_SQL, "pruning")

    async def prune(self, *, keep_seconds: float, limit: int = 500) -> int:
        """Remove what ended, or was left alone, longer ago, at most `limit` rows of each kind; returns how many."""
        found = 0
        for statement in self._sql.values():
            found += (await self._database.change(statement, {"keep": keep_seconds, "limit": limit})).count
        return found
