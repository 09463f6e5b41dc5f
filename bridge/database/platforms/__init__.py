"""The tables of the platforms whose workers we replace, for those who do not have them yet: one SQL file each, beside this one.

Tables that are there are left as they are: a file says `CREATE … IF NOT EXISTS` and nothing that changes one.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from bridge.database.port import Database
from bridge.database.postgres import PostgresDatabase, reason, transaction
from bridge.database.statements import load_statements
from bridge.errors import ConfigurationError

_FILES = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.sql"))}


async def create_tables(database: Database, platform: str) -> None:
    """Create what is missing of a platform's tables, in the database's own search path. Many processes may do it at once.

    Raises `ConfigurationError` for a platform that is not known, and for a database where it cannot be done.
    """
    if platform not in _FILES:
        raise ConfigurationError(f"there are no tables of {platform!r}; expected one of {', '.join(_FILES)}")
    if not isinstance(database, PostgresDatabase):
        raise ConfigurationError(f"BRIDGE_DATABASE: the tables of {platform} need PostgreSQL, and {database.name} is an embedded file")
    try:
        async with transaction(database.driver) as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('lamina'), hashtext(:platform))"), {"platform": platform})
            for statement in load_statements(_FILES[platform]).values():
                await connection.execute(statement)
    except (DBAPIError, OSError, TimeoutError) as error:
        raise ConfigurationError(
            f"BRIDGE_DATABASE: the tables of {platform} cannot be created in {database.name} ({reason(error)})"
        ) from error
