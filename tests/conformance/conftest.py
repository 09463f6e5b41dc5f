"""Every adapter of the bridge's ports, one parameter each. A new adapter joins its suite here."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from bridge.database.local_queue import LocalQueue
from bridge.google.access import PubsubAccess
from bridge.redis.access import RedisAccess
from bridge.settings import load
from bridge.sinks.local import LocalSink
from bridge.sinks.port import Sink
from bridge.sinks.pubsub import PubsubSink
from bridge.sinks.redis_channel import RedisSink
from bridge.sinks.sqs import SqsQueues, SqsSink
from bridge.store import Store, open_store
from tests.support.bridge.sources.kinds import SOURCES
from tests.support.bridge.sources.port import SourceAtHand
from tests.support.bridge.sources.pubsub_pull import EMULATED, on_googles_emulator
from tests.support.servers.ministack import Ministack
from tests.support.servers.pubsub_server import pubsub_server
from tests.support.servers.redis import RedisServer
from tests.support.servers.sqs import aws_of, fresh_queue, lying_in


@dataclass(frozen=True, kw_only=True)
class SinkAtHand:
    """A sink, and what has arrived in a queue of it: message ids and bodies."""

    sink: Sink
    arrived: Callable[[str], Awaitable[Sequence[tuple[str, bytes]]]]


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own."""
    return _location(request, tmp_path)


def _location(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "sqlite":
        return str(folder / "bridge.db")
    return str(request.getfixturevalue("new_postgres_database")())


@pytest.fixture
async def stores(location: str) -> AsyncIterator[tuple[Store, Store]]:
    """Two replicas' views of one ledger."""
    settings = load(database=location)
    async with open_store(settings) as one, open_store(settings) as other:
        yield one, other


@pytest.fixture
def store(stores: tuple[Store, Store]) -> Store:
    return stores[0]


@pytest.fixture(params=[*SOURCES, EMULATED])
async def source_at_hand(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SourceAtHand]:
    """Its leases are short for tests that say that they wait until some run out.

    Those of others end too before a test gives up: what is on its way when a stream of Pub/Sub ends comes again after one.
    """
    opened = on_googles_emulator if request.param == EMULATED else SOURCES[request.param].at_hand
    if not request.node.get_closest_marker("short_leases"):
        monkeypatch.setattr(sys.modules[opened.__module__], "LEASE_SECONDS", 10.0)
    async with opened(request.getfixturevalue, tmp_path) as at_hand:
        yield at_hand


@pytest.fixture(params=["sqlite", "postgres", "sqs", "pubsub", "redis"])
async def sink_at_hand(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SinkAtHand]:
    if request.param == "sqs":
        sink = _sqs_sink(request.getfixturevalue("ministack"))
    elif request.param == "redis":
        sink = _redis_sink(request.getfixturevalue("redis"))
    else:
        sink = _pubsub_sink() if request.param == "pubsub" else _local_sink(_location(request, tmp_path))
    async with sink as at_hand:
        yield at_hand


@asynccontextmanager
async def _redis_sink(redis: RedisServer) -> AsyncIterator[SinkAtHand]:
    access = RedisAccess(redis.url)
    client, prefix = Redis.from_url(redis.url), str(uuid4())

    async def arrived(queue: str) -> Sequence[tuple[str, bytes]]:
        start = f"{prefix}:{queue or 'results'}:"
        keys = sorted([key.decode() async for key in client.scan_iter(f"{start}*") if b":sent:" not in key])
        return [(key.removeprefix(start), bytes(await client.get(key) or b"")) for key in keys]

    yield SinkAtHand(sink=RedisSink(access, key=prefix + ":{channel}:{message_id}"), arrived=arrived)
    await client.aclose()
    await access.close()


@asynccontextmanager
async def _pubsub_sink() -> AsyncIterator[SinkAtHand]:
    async with pubsub_server() as server:
        server.create("results")
        server.create("answers")
        access = PubsubAccess(project="trial", emulator=server.address)

        async def arrived(queue: str) -> Sequence[tuple[str, bytes]]:
            # As who reads it must: a message that comes twice has one id.
            messages = server.topics[f"projects/trial/topics/{queue or 'results'}"]
            return list({message.attributes["MessageId"]: message.data for message in messages}.items())

        yield SinkAtHand(sink=PubsubSink(access), arrived=arrived)
        await access.close()


@asynccontextmanager
async def _sqs_sink(ministack: Ministack) -> AsyncIterator[SinkAtHand]:
    async with aws_of(ministack) as aws:
        results = await fresh_queue(aws, fifo=True)
        answers = await fresh_queue(aws, name="answers")

        async def arrived(queue: str) -> Sequence[tuple[str, bytes]]:
            found = await lying_in(aws, answers if queue == "answers" else results)
            return [(attributes["MessageId"], body) for attributes, body in found]

        yield SinkAtHand(sink=SqsSink(SqsQueues(aws), queue=results), arrived=arrived)


@asynccontextmanager
async def _local_sink(location: str) -> AsyncIterator[SinkAtHand]:
    async with open_store(load(database=location)) as store:

        async def arrived(queue: str) -> Sequence[tuple[str, bytes]]:
            return [(message.message_id, message.body) for message in await LocalQueue(store.database, queue or "results").peek()]

        yield SinkAtHand(sink=LocalSink(store.database), arrived=arrived)
