"""Every adapter of the bridge's ports, one parameter each. A new adapter joins its suite here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from bridge.app import Store, open_store
from bridge.database.local_queue import LocalQueue
from bridge.settings import load
from bridge.sinks.local import LocalSink
from bridge.sinks.port import Sink
from bridge.sources.local import LocalSource
from bridge.sources.port import Source

# Short, and yet longer than a busy machine's hiccups.
LEASE_SECONDS = 0.6


@dataclass(frozen=True, kw_only=True)
class SourceAtHand:
    """A source, and how to put messages into its queue."""

    source: Source
    # Another receiver of the same queue.
    rival: Source
    # Body and priority.
    send: Callable[[bytes, int], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class SinkAtHand:
    """A sink, and what has arrived in a queue of it: message ids and bodies."""

    sink: Sink
    arrived: Callable[[str], Awaitable[Sequence[tuple[str, bytes]]]]


@pytest.fixture(params=["sqlite"])
async def stores(tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    """Two replicas' views of one ledger."""
    settings = load(database=str(tmp_path / "bridge.db"))
    async with open_store(settings) as one, open_store(settings) as other:
        yield one, other


@pytest.fixture
def store(stores: tuple[Store, Store]) -> Store:
    return stores[0]


@pytest.fixture(params=["local"])
async def source_at_hand(tmp_path: Path) -> AsyncIterator[SourceAtHand]:
    async with open_store(load(database=str(tmp_path / "bridge.db"))) as store:
        queue = LocalQueue(store.database, "jobs")

        async def send(body: bytes, priority: int = 0) -> None:
            await queue.send(str(uuid4()), body, attributes={"kind": "test"}, priority=priority)

        yield SourceAtHand(
            source=LocalSource(queue, lease_seconds=LEASE_SECONDS), rival=LocalSource(queue, lease_seconds=LEASE_SECONDS), send=send
        )


@pytest.fixture(params=["local"])
async def sink_at_hand(tmp_path: Path) -> AsyncIterator[SinkAtHand]:
    async with open_store(load(database=str(tmp_path / "bridge.db"))) as store:

        async def arrived(queue: str) -> Sequence[tuple[str, bytes]]:
            return [(message.message_id, message.body) for message in await LocalQueue(store.database, queue or "results").peek()]

        yield SinkAtHand(sink=LocalSink(store.database), arrived=arrived)
