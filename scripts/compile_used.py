"""Compiles what the bridge imports, and nothing else: an image whose files cannot be written would else compile it at every start."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import tempfile
from pathlib import Path

import bridge
from bridge.aws.access import Aws, AwsAccess
from bridge.database.engine import open_database
from bridge.database.migrate import migrate

# What libraries load by themselves once they are used.
_LOADED_LATE = (
    "sqlalchemy.dialects.postgresql.psycopg",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    "rich.table",
    "pypdfium2",
)
_SERVICES = ("sqs", "sns", "s3", "sts")


async def main() -> None:
    """Import every module whose libraries are installed, and let the others tell which they miss."""
    for module in pkgutil.walk_packages(bridge.__path__, "bridge."):
        if not module.name.startswith(("bridge.__main__", "bridge.database.migrations")):
            _import(module.name)
    for name in _LOADED_LATE:
        _import(name)
    async with Aws(AwsAccess(endpoint="http://127.0.0.1:1")) as aws:
        for service in _SERVICES:
            await aws._client(service)
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(str(Path(folder) / "bridge.db"))
        await migrate(database)
        await database.close()


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name} is left out: {error}")


if __name__ == "__main__":
    asyncio.run(main())
