"""Opens the database that a setting names."""

from __future__ import annotations

from pathlib import Path

from bridge.database.location import CloudSqlLocation, PostgresLocation, SqliteLocation, parse_location
from bridge.database.port import Database, Pool
from bridge.database.sqlite import SqliteDatabase
from bridge.errors import ConfigurationError

__all__ = ["Database", "open_database"]


def open_database(location: str, *, schema: str = "lamina", connections: Pool | None = None) -> Database:
    """Open `location` (see `bridge.database.location`). Nothing is read yet. `schema`, `connections`: of PostgreSQL.

    Raises `ConfigurationError`.
    """
    found = parse_location(location)
    if isinstance(found, SqliteLocation):
        return _open_file(found.path)
    return _open_server(found, schema, connections)


def _open_file(path: Path) -> Database:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"BRIDGE_DATABASE: the folder {path.parent} cannot be made ({error.strerror}); name another") from error
    return SqliteDatabase(path)


def _open_server(location: PostgresLocation | CloudSqlLocation, schema: str, connections: Pool | None) -> Database:
    # Drivers are optional, and take time to import.
    try:
        from bridge.database.postgres import PostgresDatabase

        if isinstance(location, CloudSqlLocation):
            from bridge.database.cloud_sql import CloudSqlDriver

            return PostgresDatabase(CloudSqlDriver(location), schema=schema, connections=connections)
        from bridge.database.libpq import PsycopgDriver

        return PostgresDatabase(PsycopgDriver(location), schema=schema, connections=connections)
    except ImportError as error:
        extra = "gcp" if isinstance(location, CloudSqlLocation) else "postgres"
        raise ConfigurationError(
            f"BRIDGE_DATABASE names a PostgreSQL server, and {error.name} is not installed; install lamina[{extra}]"
        ) from error
