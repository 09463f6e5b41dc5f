"""Connections to the database. Alone in importing SQLAlchemy's engines; its errors are translated here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bridge.errors import ConfigurationError, TransientError

# How long a connection waits for another process's write, in milliseconds.
_BUSY_MILLISECONDS = 30_000


class Database:
    """An embedded SQLite file. Many processes may share it; nothing that it has confirmed is lost."""

    def __init__(self, engine: AsyncEngine, *, path: Path) -> None:
        self.path = path
        self._engine = engine
        self._writing = engine.execution_options(write=True)
        # SQLite lets one writer in. Those of this process queue here instead of polling the file's lock.
        self._turn = asyncio.Lock()

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

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the library's errors into ours, those that lie with the database's state and not with the statement."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError, PoolTimeoutError) as error:
        raise TransientError(f"the database did not answer as it should: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]


def open_database(location: str) -> Database:
    """Open `location`: a path, or a URL such as sqlite:///bridge.db. Nothing is read yet. Raises `ConfigurationError`."""
    path = sqlite_path(location)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"BRIDGE_DATABASE: the folder {path.parent} cannot be made ({error.strerror}); name another") from error
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=8, max_overflow=8, pool_timeout=30)
    event.listen(engine.sync_engine, "connect", _configure)
    event.listen(engine.sync_engine, "begin", _begin)
    return Database(engine, path=path)


def sqlite_path(location: str) -> Path:
    """The file that a path or a sqlite URL names. Raises `ConfigurationError` for any other database."""
    if not re.match(r"[A-Za-z][A-Za-z0-9+]*://", location):
        return Path(location).expanduser().absolute()
    try:
        url = make_url(location)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        scheme = location.split("://", 1)[0]
        raise ConfigurationError(
            f"BRIDGE_DATABASE: a {scheme}:// address was given where a file was expected; use a path or sqlite:///path/to/bridge.db"
        )
    return Path(url.database).expanduser().absolute()


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
