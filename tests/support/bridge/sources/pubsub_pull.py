"""Subscriptions of Pub/Sub that are pulled from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from bridge.google.access import PubsubAccess
from bridge.google.pulled import Patience
from bridge.sources.pubsub_pull import PubsubSource
from tests.support.bridge.sources.local import over_the_line, shared_database
from tests.support.bridge.sources.port import IN_A_ROW, LEASE_SECONDS, Find, Lines, Rig, SourceAtHand, SourceKind
from tests.support.servers.pubsub_emulator import PubsubEmulator
from tests.support.servers.pubsub_server import PubsubServer, pubsub_server

# The name of the source on Google's emulator.
EMULATED = "pubsub emulator"


@asynccontextmanager
async def _at_hand_on(
    server: PubsubServer | PubsubEmulator, *, linger_seconds: float = 0, hold_seconds: float = 600
) -> AsyncIterator[SourceAtHand]:
    prefix = f"jobs-{uuid4()}"
    topics = [f"{prefix}-{urgency}" for urgency in range(3)]
    emulated = isinstance(server, PubsubEmulator)
    for topic in topics:
        # Deliveries are counted only for the sake of such a policy.
        server.create(topic, f"{topic}-sub", most_deliveries=100)
    access = PubsubAccess(project="trial", emulator=server.address)
    # Streams end with their receiver: else either might get what both could have.
    patience = Patience(linger_seconds=linger_seconds, settle_seconds=0.3, hold_seconds=hold_seconds)
    sources = [
        PubsubSource(access, [f"{topic}-sub" for topic in topics], lease_seconds=LEASE_SECONDS, urgent_in_a_row=IN_A_ROW, patience=patience)
        for _ in range(2)
    ]

    async def send(body: bytes, priority: int = 0) -> None:
        server.publish(topics[min(priority // 4, 2)], body, kind="test")

    yield SourceAtHand(source=sources[0], rival=sources[1], send=send, levels=sources[0].levels, comes_to_either=emulated)
    for source in sources:
        await source.close()
    await access.close()


@asynccontextmanager
async def _at_hand(find: Find, folder: Path) -> AsyncIterator[SourceAtHand]:
    async with pubsub_server() as server, _at_hand_on(server) as at_hand:
        yield at_hand


@asynccontextmanager
async def on_googles_emulator(find: Find, folder: Path) -> AsyncIterator[SourceAtHand]:
    """The same on Google's emulator, where the machine has it."""
    # What comes to the stream that one of the two has left open is soon given to the other.
    async with _at_hand_on(find("google_emulator"), linger_seconds=5, hold_seconds=3) as at_hand:
        yield at_hand


@asynccontextmanager
async def _rig(find: Find, folder: Path, lines: Lines) -> AsyncIterator[Rig]:
    database = shared_database(find)
    reached = await over_the_line(find, lines, database)
    async with pubsub_server() as server:
        server.create("jobs", "jobs-sub")
        server.create("results")
        settings = {
            "database": reached,
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

        yield Rig(database=database, settings=lambda: settings, send=send, redeliver=redeliver, left=left, arrived=arrived)


PUBSUB_PULL = SourceKind(adapter="pubsub_pull", lines=frozenset({"database", "queue", "inference"}), at_hand=_at_hand, rig=_rig)
