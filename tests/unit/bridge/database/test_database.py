"""The embedded database: what it promises, and how it is brought to its newest schema."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

import bridge.database
from bridge.database.engine import open_database
from bridge.database.migrate import LATEST, migrate
from bridge.database.schema import metadata
from bridge.database.sqlite import SqliteDatabase
from bridge.errors import ConfigurationError, TransientError

_INSERT = text("INSERT INTO local_messages (queue, message_id, body, attributes, sent_at, visible_at) VALUES ('q', '1', '', '', 0, 0)")


def _open(path: Path) -> SqliteDatabase:
    opened = open_database(str(path))
    assert isinstance(opened, SqliteDatabase)
    return opened


async def _write_and_fail(database: SqliteDatabase) -> None:
    async with database.write() as connection:
        await connection.execute(_INSERT)
        raise RuntimeError


@pytest.fixture
async def database(tmp_path: Path):  # type: ignore[no-untyped-def]
    opened = _open(tmp_path / "folder" / "bridge.db")
    yield opened
    await opened.close()


async def test_a_new_file_is_migrated_once(database: SqliteDatabase) -> None:
    assert [True, False] == [await migrate(database), await migrate(database)]


async def test_the_migrations_make_the_tables_of_the_schema(database: SqliteDatabase) -> None:
    await migrate(database)
    engine = create_engine(f"sqlite:///{database.path}")
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()

    assert differences == []


def test_the_schema_knows_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(bridge.database.__file__).parent / "migrations"))

    assert ScriptDirectory.from_config(config).get_current_head() == LATEST


async def test_many_may_migrate_at_once(tmp_path: Path) -> None:
    databases = [open_database(str(tmp_path / "bridge.db")) for _ in range(6)]
    try:
        assert any(await asyncio.gather(*map(migrate, databases)))
    finally:
        for each in databases:
            await each.close()


async def test_what_is_written_is_on_the_disk_before_the_transaction_ends(database: SqliteDatabase) -> None:
    await migrate(database)
    async with database.read() as connection:
        found = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar_one() for name in ("journal_mode", "synchronous", "foreign_keys")
        ]

    assert ["wal", 2, 1] == found  # 2: FULL


async def test_a_reader_is_not_held_up_by_a_writer(database: SqliteDatabase) -> None:
    await migrate(database)
    async with database.write() as writer:
        await writer.execute(_INSERT)
        async with database.read() as reader:
            assert (await reader.execute(text("SELECT count(*) FROM local_messages"))).scalar_one() == 0


async def test_a_write_that_fails_leaves_nothing(database: SqliteDatabase) -> None:
    await migrate(database)
    with pytest.raises(RuntimeError):
        await _write_and_fail(database)
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM local_messages"))).scalar_one() == 0


async def test_the_clock_is_the_databases(database: SqliteDatabase) -> None:
    await migrate(database)
    async with database.read() as connection:
        now, expected = (await connection.execute(text("SELECT now, CAST(strftime('%s', 'now') AS INTEGER) FROM clock"))).one()

    assert 0 <= now - expected < 1


async def test_a_database_that_cannot_answer_is_a_transient_error(database: SqliteDatabase) -> None:
    with pytest.raises(TransientError, match="no such table"):
        async with database.read() as connection:
            await connection.execute(text("SELECT * FROM jobs"))


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "bridge.db").write_text("not a database, but long enough to look like one" * 100)
    database = open_database(str(tmp_path / "bridge.db"))

    with pytest.raises(ConfigurationError, match=r"BRIDGE_DATABASE: .*bridge.db cannot be used \(file is not a database\)"):
        await migrate(database)
    await database.close()


async def test_a_file_of_a_newer_version_is_left_alone(database: SqliteDatabase) -> None:
    await migrate(database)
    with sqlite3.connect(database.path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(ConfigurationError, match="at schema 9999, which is newer"):
        await migrate(database)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"BRIDGE_DATABASE: the folder .* cannot be made"):
        open_database(str(tmp_path / "file" / "folder" / "bridge.db"))
