"""Brings a database to the newest schema. Alone in importing Alembic."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError

from bridge.database.engine import Database
from bridge.database.schema import LATEST
from bridge.errors import ConfigurationError

_SCRIPTS = Path(__file__).parent / "migrations"
# How long to wait for other processes that set up the same file, in seconds.
_PATIENCE = 60.0
# Alembic keeps its context in a module, so that one process can migrate one database at a time.
_alembic_turn = threading.Lock()


async def migrate(database: Database) -> bool:
    """Bring the database to the newest schema; true when it was not there yet. Many processes may do it at once.

    Raises `ConfigurationError` when the file cannot be used, or was written by a newer version.
    """
    try:
        return await asyncio.to_thread(_migrate, database.path)
    except (sqlite3.Error, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise ConfigurationError(f"BRIDGE_DATABASE: {database.path} cannot be used ({cause}); name a file to write to") from error


def _migrate(path: Path) -> bool:
    found = _prepare(path)
    if found == LATEST:
        return False
    if found > LATEST:
        raise ConfigurationError(
            f"BRIDGE_DATABASE: {path} is at schema {found}, which is newer than {LATEST}; install that version, or name another file"
        )
    with _alembic_turn:
        _upgrade(path)
    return True


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


def _upgrade(path: Path) -> None:
    # Alembic takes long to import, and is seldom needed.
    from alembic import command
    from alembic.config import Config

    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _PATIENCE})
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    try:
        with engine.connect() as connection:
            # Whoever comes second waits here, and then finds nothing left to do.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    finally:
        engine.dispose()
