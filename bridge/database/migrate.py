"""Brings a database to the newest schema. Alone in importing Alembic."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from bridge.database.port import Database
from bridge.database.postgres import PostgresDatabase, is_worth_another_try, reason, transaction
from bridge.database.sqlite import SqliteDatabase
from bridge.errors import ConfigurationError, TransientError

# The newest migration. A test holds it equal to the folder of migrations.
LATEST = "0008"
_SCRIPTS = Path(__file__).parent / "migrations"
# How long to wait for others that set up the same database, in seconds.
_PATIENCE = 60.0
# Alembic keeps its context in a module, so that one process can migrate one database at a time.
_alembic_turn = threading.Lock()


async def migrate(database: Database) -> bool:
    """Bring the database to the newest schema; true when it was not there yet. Many processes may do it at once.

    Raises `ConfigurationError` when the database cannot be used, or was written by a newer version; `TransientError` when a
    server is out of reach.
    """
    if isinstance(database, SqliteDatabase):
        return await _migrate_file(database)
    if isinstance(database, PostgresDatabase):
        return await _migrate_server(database)
    raise TypeError(type(database))


async def _migrate_file(database: SqliteDatabase) -> bool:
    try:
        return await asyncio.to_thread(_migrate_path, database.path)
    except (sqlite3.Error, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise ConfigurationError(f"BRIDGE_DATABASE: {database.path} cannot be used ({cause}); name a file to write to") from error


def _migrate_path(path: Path) -> bool:
    if not _must_upgrade(_prepare(path), str(path)):
        return False
    with _alembic_turn:
        _upgrade_path(path)
    return True


def _must_upgrade(found: str, name: str) -> bool:
    if found > LATEST:
        raise ConfigurationError(
            f"BRIDGE_DATABASE: {name} is at schema {found}, which is newer than {LATEST}; install that version, or name another database"
        )
    return found != LATEST


def _prepare(path: Path) -> str:
    """Switch the file to write-ahead logging, which lasts, and return its schema's version, empty for a new file."""
    with closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as connection:
        _switch_journal(connection)
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
        return row[0] if row else ""


def _switch_journal(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for others here, whatever the time-out.
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _upgrade_path(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _PATIENCE})
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    try:
        with engine.connect() as connection:
            # Whoever comes second waits here, and then finds nothing left to do.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            _upgrade(connection)
            connection.commit()
    finally:
        engine.dispose()


async def _migrate_server(database: PostgresDatabase) -> bool:
    try:
        async with transaction(database.driver) as connection:
            if not _must_upgrade(await _version(connection, database.schema), database.name):
                return False
        async with _turn(), transaction(database.driver) as connection:
            await _lock(connection, database.schema)
            await _use_schema(connection, database.schema)
            await connection.run_sync(_upgrade)
        return True
    except DBAPIError as error:
        if is_worth_another_try(error) or database.driver.is_unreachable(error.orig):
            raise TransientError(f"{database.name} is out of reach: {reason(error)}") from error
        raise ConfigurationError(
            f"BRIDGE_DATABASE: {database.name} cannot be used ({reason(error)}); the account must be let in, and needs "
            f"a schema {database.schema} to make tables in, or the right to create one"
        ) from error
    except (OSError, TimeoutError) as error:
        raise TransientError(f"{database.name} is out of reach: {reason(error)}") from error


async def _version(connection: AsyncConnection, schema: str) -> str:
    table = f'"{schema}".alembic_version'
    if (await connection.execute(text("SELECT to_regclass(:name)"), {"name": table})).scalar() is None:
        return ""
    return (await connection.execute(text(f"SELECT version_num FROM {table}"))).scalar() or ""  # noqa: S608  (the name is checked)


async def _lock(connection: AsyncConnection, schema: str) -> None:
    """Wait for our turn among all processes; it ends with the transaction, so that it holds behind PgBouncer too."""
    for name in ("lock_timeout", "statement_timeout"):
        await connection.execute(text(f"SET LOCAL {name} = '{_PATIENCE:.0f}s'"))
    await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('lamina'), hashtext(:schema))"), {"schema": schema})


async def _use_schema(connection: AsyncConnection, schema: str) -> None:
    encoding = (await connection.execute(text("SHOW server_encoding"))).scalar()
    if encoding != "UTF8":
        raise ConfigurationError(f"BRIDGE_DATABASE: the database is encoded in {encoding}; use one in UTF8")
    # Only when it is missing: an account that may not create schemas can be given one.
    if not (await connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :schema"), {"schema": schema})).scalar():
        await connection.execute(text(f'CREATE SCHEMA "{schema}"'))
    await connection.execute(text(f'SET LOCAL search_path = "{schema}"'))


@asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    """Alembic's turn, waited for without holding the event loop up."""
    while not _alembic_turn.acquire(blocking=False):  # noqa: ASYNC110  (the turn is shared with threads)
        await asyncio.sleep(0.02)
    try:
        yield
    finally:
        _alembic_turn.release()


def _upgrade(connection: Connection) -> None:
    # Alembic takes long to import, and is seldom needed.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
