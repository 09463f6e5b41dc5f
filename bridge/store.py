"""What the bridge keeps, opened: its database, and what lies in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from bridge.database.engine import open_database
from bridge.database.local_queue import LocalQueue
from bridge.database.migrate import migrate
from bridge.database.port import Database, Pool
from bridge.database.sqlite import SqliteDatabase
from bridge.envelopes import native
from bridge.errors import TransientError
from bridge.job import Job
from bridge.ledger.either import LedgerDeadLetters, LedgerJobs, LedgerOutbox, LedgerPruner
from bridge.ledger.port import DeadLetter, DeadLetters, JobRecord, Jobs, Ledger, Outbox, Pruner
from bridge.requeues import Requeue, requeues
from bridge.settings import Settings
from bridge.transports.sending import resend_letter, send_job

_log = structlog.get_logger()
_DATABASE_LOOK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Store:
    """What the bridge keeps: the ledger and its neighbours, and the embedded queues."""

    database: Database
    ledger: Ledger
    outbox: Outbox
    dead_letters: DeadLetters
    jobs: Jobs
    pruner: Pruner
    # Where jobs come from.
    queue: LocalQueue
    # Where results go.
    results: LocalQueue
    # Says where else jobs may come from.
    settings: Settings
    # By system, what has a platform's own row of a job say that it is to be worked on.
    requeues: Mapping[str, Requeue]

    async def submit(self, message: bytes) -> JobRecord | None:
        """Send a message that asks for a job; returns the job when its key is known already. Raises `PoisonError`."""
        envelope = native.read(message)
        job = Job(
            key=envelope.key,
            system=envelope.system,
            request=envelope.request,
            reply_queue=envelope.reply_queue,
            priority=envelope.priority,
        )
        known = await self.jobs.find(job.key)
        # Sent first: after a crash in between, the job is done all the same.
        await send_job(self.settings, job, message, local=self.queue)
        await self.jobs.announce(job)
        return known if known is not None and known.key == job.key else None

    async def replay(self, letter_id: int) -> DeadLetter:
        """Send a dead letter's bytes again. Raises `PermanentError`."""
        letter = await self.dead_letters.reopen(letter_id)
        await self._requeue_row_of(letter.job_key)
        await resend_letter(self.settings, letter, database=self.database)
        await self.dead_letters.mark_replayed(letter_id)
        return letter

    async def reopen(self, key: str) -> bool:
        """Let a failed job be begun anew, for whoever sends its message again; false when it has not failed."""
        reopened = await self.jobs.reopen(key)
        await self._requeue_row_of(key)
        return reopened

    async def _requeue_row_of(self, key: str) -> None:
        """Have the platform's row of a job say that it is to be worked on, where it has the last word: a failed one is skipped."""
        job = await self.jobs.find(key) if key else None
        if job is not None and job.key == key and (requeue := self.requeues.get(job.system)):
            await requeue(key)

    async def probe(self) -> None:
        """Raise `TransientError` when the ledger is out of reach."""
        await self.jobs.list(limit=1)

    async def all_sent(self) -> bool:
        """Whether no message is still to be sent."""
        return (await self.outbox.backlog()).depth == 0


@asynccontextmanager
async def open_store(settings: Settings, *, patience_seconds: float = 0.0) -> AsyncIterator[Store]:
    """Open the database, brought to the newest schema. `patience_seconds`: how long a server may take to come.

    Raises `ConfigurationError`, `TransientError`.
    """
    database = open_database(settings.database, schema=settings.database_schema, connections=_connections(settings))
    try:
        await _prepare(database, patience_seconds)
        yield _store_in(database, settings)
    finally:
        await database.close()


def _connections(settings: Settings) -> Pool:
    return Pool(
        size=settings.database_pool_size,
        overflow=settings.database_pool_overflow,
        seconds=settings.database_pool_seconds,
        recycle_seconds=settings.database_recycle_seconds,
    )


async def _prepare(database: Database, patience_seconds: float) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + patience_seconds
    while True:
        try:
            await migrate(database)
            return
        except TransientError as error:
            if clock() > deadline:
                raise
            _log.warning("database_not_ready", error=str(error))
            await asyncio.sleep(_DATABASE_LOOK_SECONDS)


def _store_in(database: Database, settings: Settings) -> Store:
    ledger, outbox = _kept_in_sqlite(database) if isinstance(database, SqliteDatabase) else _kept_in_postgres(database)
    return Store(
        database=database,
        ledger=ledger,
        outbox=outbox,
        dead_letters=LedgerDeadLetters(database),
        jobs=LedgerJobs(database),
        pruner=LedgerPruner(database),
        queue=LocalQueue(database, settings.queue),
        results=LocalQueue(database, settings.results_queue),
        settings=settings,
        requeues=requeues(database),
    )


def _kept_in_sqlite(database: SqliteDatabase) -> tuple[Ledger, Outbox]:
    from bridge.ledger.sqlite import SqliteLedger, SqliteOutbox

    return SqliteLedger(database), SqliteOutbox(database)


def _kept_in_postgres(database: Database) -> tuple[Ledger, Outbox]:
    from bridge.ledger.postgres import PostgresLedger

    return PostgresLedger(database), LedgerOutbox(database)
