"""Rollups that the database does by itself: vitals and nutrition."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import structlog

from bridge.database.port import Database
from bridge.database.text import storable
from bridge.errors import ConfigurationError, NotYetError, PermanentError, TooSlowError
from bridge.rollups.port import Rolled

_log = structlog.get_logger()
_SQL = Path(__file__).parent / "sql"
# After so many failures a row is parked.
MOST_ATTEMPTS = 5
# A batch that takes too long is tried with a quarter of its rows, down to so many.
_FEWEST = 500
_BUSY_SECONDS = 2.0
_AGGREGATED = {"status": "aggregation_status", "failure": "aggregation_status = 'failed'"}
# Of a worker that died rows are left `queued` or `processing`.
_QUEUED = {"waiting": "'pending', 'queued', 'processing', 'failed'", "asked": "'pending', 'queued'"}
# The words of `waiting.sql` for each kind: the table of its `rows`; the column of their `status`; the statuses that are `waiting`, and of
# these the ones that are `asked` for whatever failed before; and what a `failure` sets.
_WORDS: Mapping[str, Mapping[str, str]] = {
    "labs": {
        "rows": "lab_reports",
        "status": "categorization_status",
        "waiting": "'pending', 'failed'",
        "asked": "'pending'",
        "failure": "categorization_status = 'failed', failure_reason = left(CAST(:error AS text), 255)",
    },
    "vitals": {"rows": "vitals_raw_data", **_AGGREGATED, **_QUEUED},
    "nutrition": {"rows": "nutrition_raw_data", **_AGGREGATED, **_QUEUED},
}
# In this order, those that a file has; all of one batch are one transaction.
_TABLES = ("touched", "pieces_table")
_BUCKETS = ("touched_counted", "pieces", "pieces_counted", "hourly", "daily", "pairs", "weekly", "monthly", "quarterly", "yearly")


@dataclass(frozen=True, kw_only=True)
class RollupOptions:
    """How rows are rolled up."""

    # Of local times, such as Asia/Kolkata.
    zone: str = "Asia/Kolkata"
    # Rows of one batch.
    batch: int = 20_000
    # Whose figures are written: empty for ours, zivo for those of the worker that we replace.
    compat: str = ""


class RollupTables:
    """The tables of one kind of rows, and what is done on them in one transaction."""

    def __init__(self, database: Database, name: str, options: RollupOptions) -> None:
        """Raises `ConfigurationError` for a database that cannot hold a platform's tables."""
        if database.dialect != "postgres":
            raise ConfigurationError(f"BRIDGE_DATABASE: {name} are rolled up in PostgreSQL, and {database.name} is an embedded file")
        self.name = name
        self._database = database
        self._options = options
        # What is the same whoever's figures are written, and what is not, of those kinds that know two.
        figures = f"{name}_{options.compat or 'ours'}"
        files = [name, *([figures] if (_SQL / "postgres" / f"{figures}.sql").exists() else [])]
        self._sql = dict(database.statements(_SQL, "waiting", domain=name, **_WORDS[name]))
        for file in files:
            self._sql |= database.statements(_SQL, file)

    async def look(self, statement: str, **values: Any) -> Sequence[Mapping[str, Any]]:
        """The rows that a statement gives. Raises `TransientError`."""
        return [dict(row) for row in (await self._database.look(self._sql[statement], values)).rows]

    async def write(self, statement: str, **values: Any) -> Sequence[Mapping[str, Any]]:
        """Run a statement by itself; the rows that it gives. Raises `TransientError`."""
        found = await self._database.change(self._sql[statement], {"zone": self._options.zone, **storable(values)})
        return [dict(row) for row in found.rows]

    async def users(self, *, failed: bool = False) -> Sequence[int]:
        """Whose rows wait, the longest waiting first. `failed`: whose rows have failed and are due alone. Raises `TransientError`."""
        return [row["user_id"] for row in await self.look("due" if failed else "users")]

    async def recompute(self, user: int, since: date, until: date) -> None:
        """Compute all buckets of a user's days anew; what was deleted since is not counted. Raises `TransientError`, `NotYetError`."""
        try:
            await self.change(user, ["touch", "forget"], since=since, until=until)
        except TooSlowError:
            if since == until:
                raise
            middle = since + (until - since) // 2
            await self.recompute(user, since, middle)
            await self.recompute(user, middle + timedelta(days=1), until)

    async def take(self, user: int, steps: Sequence[str], **values: Any) -> Rolled:
        """Take a batch up by those steps. Raises as `change` does."""
        [found] = await self.change(user, steps, then="counted", **values)
        return Rolled(taken=found["taken"], failed=found["failed"])

    async def change(self, user: int, steps: Sequence[str], *, then: str = "", **values: Any) -> Sequence[Mapping[str, Any]]:
        """Run those steps that there are, and compute every bucket that they touch: all or nothing. What `then`, the last of it, gives.

        Raises `TransientError`; `NotYetError` while another worker has the user's rows; `PermanentError` when the tables refuse it.
        """
        everything = {"user": user, "zone": self._options.zone, **values}
        statements = [self._sql[name] for name in (*_TABLES, *steps, *_BUCKETS, then) if name in self._sql]
        try:
            followers = [(statement, everything) for statement in statements]
            found = await self._database.change(self._sql["lock"], {"user": user}, then=followers)
        except TooSlowError as error:
            if not error.waited:
                raise
            raise NotYetError(f"another worker is at this user's {self.name}", retry_after=_BUSY_SECONDS) from error
        return [dict(row) for row in found.last]

    async def fail(self, row: int, error: str, *, passing: bool = False) -> Rolled:
        """Have a row tried again later and later, and then parked. `passing`: it may go better soon.

        Nothing comes of it where another worker has done the row meanwhile.
        """
        _log.warning("row_not_rolled_up", domain=self.name, row=row, error=error)
        if not (told := await self.write("failed", row=row, error=error, most=MOST_ATTEMPTS)):
            return Rolled()
        is_parked = told[0]["is_counted"] and told[0]["due_at"] is None
        return Rolled(failed=1, postponed=int(passing and not is_parked))


class TableRollup:
    """Takes rows up in the database alone."""

    def __init__(self, database: Database, name: str, options: RollupOptions) -> None:
        """`name`: vitals or nutrition. Raises `ConfigurationError` for a database that cannot hold a platform's tables."""
        self._tables = RollupTables(database, name, options)
        self._batch = options.batch
        # Rows of one batch of those users whose batches took too long, until their backlogs are done.
        self._smaller: dict[int, int] = {}

    @property
    def name(self) -> str:
        """For people."""
        return self._tables.name

    async def users(self, *, failed: bool = False) -> Sequence[int]:
        """Whose rows wait, the longest waiting first. `failed`: whose rows have failed and are due alone. Raises `TransientError`."""
        return await self._tables.users(failed=failed)

    async def roll(self, user: int) -> Rolled:
        """Take up one batch of a user's rows. Raises `TransientError`."""
        batch = self._smaller.get(user, self._batch)
        ids = [row["id"] for row in await self._tables.look("waiting", user=user, limit=batch)]
        found = await self._take(user, ids) if ids else Rolled()
        if len(ids) < self._smaller.get(user, batch):
            self._smaller.pop(user, None)
        return found

    async def recompute(self, user: int, since: date, until: date) -> None:
        """Compute all buckets of a user's days anew; what was deleted since is no longer counted. Raises `TransientError`."""
        await self._tables.recompute(user, since, until)

    async def _take(self, user: int, ids: Sequence[int]) -> Rolled:
        try:
            return await self._tables.take(user, ["refuse", "take"], ids=json.dumps(ids), limit=len(ids))
        except PermanentError as error:
            if len(ids) == 1:
                return await self._tables.fail(ids[0], str(error))
            # One of them cannot be done: the others are, in halves.
            half = len(ids) // 2
            return await self._take(user, ids[:half]) + await self._take(user, ids[half:])
        except TooSlowError as error:
            if len(ids) <= _FEWEST:
                raise
            self._smaller[user] = smaller = max(_FEWEST, len(ids) // 4)
            _log.warning("batch_made_smaller", domain=self.name, rows=smaller, error=str(error))
            return await self._take(user, ids[:smaller])
