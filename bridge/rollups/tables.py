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
from bridge.errors import ConfigurationError, NotYetError, PermanentError, TooSlowError
from bridge.records.text import storable
from bridge.rollups.port import Rolled

_log = structlog.get_logger()
_SQL = Path(__file__).parent / "sql"
# After so many failures a row is parked.
MOST_ATTEMPTS = 5
# A batch that takes too long is tried with a quarter of its rows, down to so many.
_FEWEST = 500
_BUSY_SECONDS = 2.0
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
        compat = f"_{options.compat}" if options.compat and (_SQL / "postgres" / f"{name}_{options.compat}.sql").exists() else ""
        self._sql = database.statements(_SQL, f"{name}{compat}")

    async def look(self, statement: str, **values: Any) -> Sequence[Mapping[str, Any]]:
        """The rows that a statement gives. Raises `TransientError`."""
        return [dict(row) for row in (await self._database.look(self._sql[statement], values)).rows]

    async def write(self, statement: str, **values: Any) -> None:
        """Run a statement by itself. Raises `TransientError`."""
        await self._database.change(self._sql[statement], {"zone": self._options.zone, **storable(values)})

    async def users(self) -> Sequence[int]:
        """Whose rows wait, the longest waiting first. Raises `TransientError`."""
        return [row["user_id"] for row in await self.look("users")]

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

    async def change(self, user: int, steps: Sequence[str], **values: Any) -> None:
        """Run those steps that there are, and compute every bucket that they touch: all or nothing.

        Raises `TransientError`; `NotYetError` while another worker has the user's rows; `PermanentError` when the tables refuse it.
        """
        everything = {"user": user, "zone": self._options.zone, **values}
        statements = [self._sql[name] for name in (*_TABLES, *steps, *_BUCKETS) if name in self._sql]
        try:
            await self._database.change(self._sql["lock"], {"user": user}, then=[(statement, everything) for statement in statements])
        except TooSlowError as error:
            if not error.waited:
                raise
            raise NotYetError(f"another worker is at this user's {self.name}", retry_after=_BUSY_SECONDS) from error

    async def fail(self, row: int, error: str) -> Rolled:
        """Have a row tried again later and later, and then parked."""
        _log.warning("row_not_rolled_up", domain=self.name, row=row, error=error)
        await self.write("failed", row=row, error=error, most=MOST_ATTEMPTS)
        return Rolled(failed=1)


class TableRollup:
    """Takes rows up in the database alone."""

    def __init__(self, database: Database, name: str, options: RollupOptions) -> None:
        """`name`: vitals or nutrition. Raises `ConfigurationError` for a database that cannot hold a platform's tables."""
        self._tables = RollupTables(database, name, options)
        self._batch = options.batch

    @property
    def name(self) -> str:
        """For people."""
        return self._tables.name

    async def users(self) -> Sequence[int]:
        """Whose rows wait, the longest waiting first. Raises `TransientError`."""
        return await self._tables.users()

    async def roll(self, user: int) -> Rolled:
        """Take up one batch of a user's rows. Raises `TransientError`."""
        ids = [row["id"] for row in await self._tables.look("waiting", user=user, limit=self._batch)]
        return await self._take(user, ids) if ids else Rolled()

    async def recompute(self, user: int, since: date, until: date) -> None:
        """Compute all buckets of a user's days anew; what was deleted since is no longer counted. Raises `TransientError`."""
        await self._tables.recompute(user, since, until)

    async def _take(self, user: int, ids: Sequence[int]) -> Rolled:
        try:
            await self._tables.change(user, ["refuse", "take"], ids=json.dumps(ids), limit=len(ids))
        except PermanentError as error:
            if len(ids) == 1:
                return await self._tables.fail(ids[0], str(error))
            # One of them cannot be done: the others are, in halves.
            half = len(ids) // 2
            return await self._take(user, ids[:half]) + await self._take(user, ids[half:])
        except TooSlowError as error:
            if len(ids) <= _FEWEST:
                raise
            self._batch = max(_FEWEST, len(ids) // 4)
            _log.warning("batch_made_smaller", domain=self.name, rows=self._batch, error=str(error))
            return await self._take(user, ids[: self._batch])
        [parked] = await self._tables.look("parked", ids=json.dumps(ids))
        return Rolled(taken=len(ids) - parked["count"], failed=parked["count"])
