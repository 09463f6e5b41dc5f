"""The embedded database. Its driver's errors are translated here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, TextClause, event
from sqlalchemy.exc import IntegrityError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from bridge.database.port import Rows, Statement
from bridge.database.statements import load_statements
from bridge.errors import PermanentError, TransientError, first_line

# How long a connection waits for another process's write, in milliseconds.
_BUSY_MILLISECONDS = 30_000


class SqliteDatabase:
    """An embedded SQLite file. Many processes may share it; nothing that it has confirmed is lost."""

    dialect: Literal["sqlite", "postgres"] = "sqlite"

    def __init__(self, path: Path) -> None:
        """`path`: made when missing; its folder is there. Nothing is read yet."""
        self.path = path
        options = {"pool_size": 8, "max_overflow": 8, "pool_timeout": 30}
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{path}", hide_parameters=True, **options)
        event.listen(self._engine.sync_engine, "connect", _configure)
        event.listen(self._engine.sync_engine, "begin", _begin)
        self._writing = self._engine.execution_options(write=True)
        # SQLite lets one writer in. Those of this process queue here instead of polling the file's lock.
        self._turn = asyncio.Lock()

    @property
    def name(self) -> str:
        """For people."""
        return str(self.path)

    def statements(self, folder: Path, name: str, **words: str) -> Mapping[str, TextClause]:
        """The statements of `folder`/sqlite/`name`.sql."""
        return load_statements(folder / "sqlite" / f"{name}.sql", **words)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one state of the database. Raises `TransientError`."""
        with _translated():
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that holds the write lock from its start and is on the disk when it ends. Raises `TransientError`."""
        with _translated():
            async with self._turn, self._writing.begin() as connection:
                yield connection

    async def look(self, statement: TextClause, values: Mapping[str, Any] | None = None) -> Rows:
        """Run one statement that changes nothing. Raises `TransientError`."""
        async with self.read() as connection:
            return await _run(connection, statement, values)

    async def change(self, statement: TextClause, values: Mapping[str, Any] | None = None, *, then: Sequence[Statement] = ()) -> Rows:
        """Run one statement, and `then` if it found a row; what they changed is on the disk when this returns. Raises `TransientError`."""
        async with self.write() as connection:
            found = await _run(connection, statement, values)
            await follow(connection, then if found.count else ())
            return found

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


async def follow(connection: AsyncConnection, statements: Sequence[Statement]) -> None:
    """Run statements in a transaction that has begun. Raises `PermanentError` when one is refused."""
    for statement, values in statements:
        try:
            await _run(connection, statement, values)
        except IntegrityError as error:
            raise PermanentError(f"the tables refuse what is to be written: {first_line(error)}") from error


async def _run(connection: AsyncConnection, statement: TextClause, values: Mapping[str, Any] | None) -> Rows:
    result = await connection.execute(statement, dict(values or {}))
    rows = result.mappings().all() if result.returns_rows else ()
    return Rows(rows=rows, count=len(rows) if result.returns_rows else result.rowcount)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the library's errors into ours, those that lie with the database's state and not with the statement."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError, PoolTimeoutError) as error:
        raise TransientError(f"the database did not answer as it should: {first_line(error)}") from error


def _configure(connection: Any, _record: Any) -> None:
    # Transactions are begun by `_begin` alone.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout = {_BUSY_MILLISECONDS}", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads and then writes can otherwise be refused halfway.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("write") else "BEGIN")
