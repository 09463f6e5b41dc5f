"""Bridges that are stopped, as by a machine that stands still."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import text

from bridge.database.port import Database
from bridge.database.sqlite import SqliteDatabase
from tests.support.patience import until

_OPEN_TRANSACTIONS = text(
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' "
    "AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
)


def is_frozen(pid: int) -> bool:
    """Whether a process has been stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def freeze_between_writes(pid: int, database: Database) -> None:
    """Stop a process, or take one that is stopped, and let it go on until it holds no lock, which nobody could write past."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: is_frozen(pid))
        if not await _is_locked(database):
            return
        os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(0.01)


async def _is_locked(database: Database) -> bool:
    if not isinstance(database, SqliteDatabase):
        return bool((await database.look(_OPEN_TRANSACTIONS)).rows)
    with closing(sqlite3.connect(database.path, timeout=0)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False
