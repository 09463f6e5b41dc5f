"""Subscriptions of Pub/Sub that are pulled from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.google.access import PubsubAccess
from bridge.google.intake import Patience
from bridge.sources.pubsub_pull import PubsubSource
from tests.support.pubsub_server import pubsub_server
from tests.support.sources.local import over_the_line, shared_database
from tests.support.sources.port import IN_A_ROW, LEASE_SECONDS, Find, Lines, Rig, SourceAtHand, SourceKind


@asynccontextmanager
async def _at_hand(find: Find, folder: Path) -> AsyncIterator[SourceAtHand]:
    async with pubsub_server() as server:
        for urgency in range(3):
            server.create(f"jobs-{urgency}", f"jobs-{urgency}-sub")
        access = PubsubAccess(project="trial", emulator=server.address)
        # Streams end with their receiver: else either might get what both could have.
        subscriptions, patience = [f"jobs-{urgency}-sub" for urgency in range(3)], Patience(linger_seconds=0, settle_seconds=0.3)
        sources = [
            PubsubSource(access, subscriptions, lease_seconds=LEASE_SECONDS, urgent_in_a_row=IN_A_ROW, patience=patience) for _ in range(2)
        ]

        async def send(body: bytes, priority: int = 0) -> None:
            server.publish(f"jobs-{min(priority // 4, 2)}", body, kind="test")

        yield SourceAtHand(source=sources[0], rival=sources[1], send=send, levels=sources[0].levels)
        for source in sources:
            await source.close()
        await access.close()


@asynccontextmanager
async def _rig(find: Find, folder: Path, lines: Lines) -> AsyncIterator[Rig]:
    database = await over_the_line(find, lines, shared_database(find))
    async with pubsub_server() as server:
        server.create("jobs", "jobs-sub")
        server.create("results")
        settings = {
            "database": database,
            "pubsub_project": "trial",
            "pubsub_subscriptions": ("jobs-sub",),
            "pubsub_emulator": f"127.0.0.1:{await lines.to('queue', server.port)}",
        }

        async def send(body: bytes) -> None:
            server.publish("jobs", body)

        async def redeliver() -> None:
            server.redeliver("jobs-sub")

        async def left() -> int:
            return server.left("jobs-sub")

        async def arrived() -> Sequence[tuple[str, bytes]]:
            return [(message.attributes["MessageId"], message.data) for message in server.topics["projects/trial/topics/results"]]

        yield Rig(settings=lambda: settings, send=send, redeliver=redeliver, left=left, arrived=arrived)


PUBSUB_PULL = SourceKind(adapter="pubsub_pull", lines=frozenset({"database", "queue", "inference"}), at_hand=_at_hand, rig=_rig)
