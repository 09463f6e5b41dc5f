"""The embedded queue, on either database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from bridge.database.local_queue import LocalQueue
from bridge.settings import load
from bridge.sources.local import LocalSource
from bridge.store import Store, open_store
from tests.support.bridge.sources.port import IN_A_ROW, LEASE_SECONDS, Find, Lines, Rig, SourceAtHand, SourceKind
from tests.support.patience import PATIENCE_SECONDS

_INFERENCE = frozenset({"inference"})


def shared_database(find: Find) -> str:
    """The address of a database of PostgreSQL of the newest schema, with nothing in it."""
    return str(find("new_postgres_database")())


async def over_the_line(find: Find, lines: Lines, database: str) -> str:
    """The address by which bridges reach a database of PostgreSQL."""
    server = find("postgres")
    return str(server.url(database.rpartition("/")[2], port=await lines.to("database", server.port)))


@asynccontextmanager
async def local_at_hand(database: str) -> AsyncIterator[SourceAtHand]:
    """The queue `jobs` of a database."""
    async with open_store(load(database=database), patience_seconds=PATIENCE_SECONDS) as store:
        queue = LocalQueue(store.database, "jobs")

        async def send(body: bytes, priority: int = 0) -> None:
            await queue.send(str(uuid4()), body, attributes={"kind": "test"}, priority=priority)

        source, rival = (LocalSource(queue, lease_seconds=LEASE_SECONDS, urgent_in_a_row=IN_A_ROW) for _ in range(2))
        yield SourceAtHand(source=source, rival=rival, send=send, levels=source.levels)


async def results_in(store: Store) -> Sequence[tuple[str, bytes]]:
    """What has come into the embedded queue of results."""
    return [(each.message_id, each.body) for each in await store.results.peek(limit=1000)]


async def let_leases_run_out(store: Store) -> None:
    """What receivers have is delivered again at once."""
    table = "lamina.local_messages" if store.database.dialect == "postgres" else "local_messages"
    await store.database.change(text(f"UPDATE {table} SET visible_at = 0 WHERE receipt IS NOT NULL"))


@asynccontextmanager
async def _rig(database: str, reached: str) -> AsyncIterator[Rig]:
    async with open_store(load(database=database), patience_seconds=PATIENCE_SECONDS) as store:

        async def send(body: bytes) -> None:
            await store.queue.send(str(uuid4()), body)

        async def redeliver() -> None:
            await let_leases_run_out(store)

        async def arrived() -> Sequence[tuple[str, bytes]]:
            return await results_in(store)

        yield Rig(
            database=database,
            settings=lambda: {"database": reached},
            send=send,
            redeliver=redeliver,
            left=store.queue.depth,
            arrived=arrived,
        )


def _sqlite_at_hand(find: Find, folder: Path) -> AbstractAsyncContextManager[SourceAtHand]:
    return local_at_hand(str(folder / "bridge.db"))


def _postgres_at_hand(find: Find, folder: Path) -> AbstractAsyncContextManager[SourceAtHand]:
    return local_at_hand(shared_database(find))


def _sqlite_rig(find: Find, folder: Path, lines: Lines) -> AbstractAsyncContextManager[Rig]:
    database = str(folder / "bridge.db")
    return _rig(database, database)


@asynccontextmanager
async def _postgres_rig(find: Find, folder: Path, lines: Lines) -> AsyncIterator[Rig]:
    database = shared_database(find)
    async with _rig(database, await over_the_line(find, lines, database)) as rig:
        yield rig


SQLITE = SourceKind(adapter="local", lines=_INFERENCE, at_hand=_sqlite_at_hand, rig=_sqlite_rig)
POSTGRES = SourceKind(adapter="local", lines=_INFERENCE | {"database"}, at_hand=_postgres_at_hand, rig=_postgres_rig)
