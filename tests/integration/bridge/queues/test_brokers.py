"""Whole bridges on Redis and Pub/Sub, put together from their settings."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from bridge.app import Bridge, local_transport
from bridge.errors import ConfigurationError, TransientError
from bridge.served import Systems
from bridge.settings import load
from bridge.store import Store, open_store
from bridge.transports.opening import open_brokers, open_transport
from tests.support.bridge.trial_bridge import TrialHandler, message, trial_settings
from tests.support.servers.pubsub_server import pubsub_server
from tests.support.servers.redis import RedisServer


@asynccontextmanager
async def _running(folder: Path, **settings: Any) -> AsyncIterator[Store]:
    given = load(**trial_settings(folder, **settings))
    stop = asyncio.Event()
    async with open_store(given) as store, open_transport(given, local=local_transport(given, store)) as transport:
        bridge = Bridge(given, store, Systems(handlers=[TrialHandler()]), transport=transport)
        running = asyncio.create_task(bridge.run(stop, asyncio.Event()))
        try:
            yield store
        finally:
            stop.set()
            await asyncio.wait_for(running, 60)


async def _until(told: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(60):
        while not (answer := await told()):
            await asyncio.sleep(0.02)
    return answer


async def test_jobs_go_through_redis(redis: RedisServer, tmp_path: Path) -> None:
    queue = f"trial:{uuid4()}"
    client = Redis.from_url(redis.url)
    async with _running(tmp_path, redis_queues=f"{queue}:urgent,{queue}", redis_url=redis.url, results_queue=f"{queue}:results") as store:
        await store.submit(message("by command", seconds=0))
        await client.rpush(queue, message("plain"), message("plain"), b"poison")
        keys = [f"{queue}:results:{key}:completed" for key in ("by command", "plain")]
        results = [json.loads(await _until(partial(client.get, key))) for key in keys]
        [letter] = await _until(store.dead_letters.list)
        await _until(lambda: _no_more(client, queue))
        assert ["by command", "plain"] == [result["job"] for result in results]
        assert ("redis", queue, b"poison") == (letter.source, letter.queue, letter.body)

        await store.replay(letter.id)
        assert 2 == len(await _until(lambda: _two(store)))
    await client.aclose()


async def _no_more(client: Redis, queue: str) -> bool:
    return not await client.exists(queue, f"{queue}:processing", f"{queue}:delayed", f"{queue}:urgent")


async def _two(store: Store) -> Any:
    letters = await store.dead_letters.list()
    return letters if len(letters) == 2 else None


async def test_jobs_go_through_pubsub(tmp_path: Path) -> None:
    async with pubsub_server() as server:
        server.create("jobs", "jobs-sub")
        server.create("results")
        settings = {
            "pubsub_subscriptions": "jobs-sub",
            "pubsub_topic": "jobs",
            "pubsub_project": "trial",
            "pubsub_emulator": server.address,
        }
        async with _running(tmp_path, **settings) as store:
            await store.submit(message("by command"))
            for _ in range(2):
                server.publish("jobs", message("twice", seconds=0.2))
            results = server.topics["projects/trial/topics/results"]

            async def done() -> bool:
                return len(results) >= 2 and server.left("jobs-sub") == 0

            await _until(done)
        assert {"by command", "twice"} == {json.loads(result.data)["job"] for result in results}
        assert 2 == len(results)


async def test_redis_out_of_reach_is_told_by_its_probe(redis: RedisServer) -> None:
    async with open_brokers(load(redis_queues="jobs", redis_url=redis.url)) as within:
        assert within.broker is not None
        assert within.broker.probe is not None
        await within.broker.probe()
    async with open_brokers(load(redis_queues="jobs", redis_url="redis://127.0.0.1:1")) as without:
        assert without.broker is not None
        assert without.broker.probe is not None
        with pytest.raises(TransientError):
            await without.broker.probe()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"redis_queues": "jobs", "pubsub_subscriptions": "jobs-sub"}, "BRIDGE_REDIS_QUEUES and BRIDGE_PUBSUB_SUBSCRIPTIONS are both set"),
        ({"redis_queues": "jobs", "redis_url": "localhost"}, "BRIDGE_REDIS_URL"),
        ({"pubsub_subscriptions": "jobs-sub", "lease_seconds": 900.0}, "BRIDGE_LEASE_SECONDS"),
        ({"pubsub_push_audience": "https://bridge.example/push"}, "BRIDGE_PUBSUB_PUSH_ACCOUNT"),
        ({"pubsub_push_audience": "https://bridge.example/push", "pubsub_push_account": "a@b", "http": "off"}, "BRIDGE_HTTP"),
    ],
)
async def test_settings_that_are_not_right_name_the_variable(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        async with open_brokers(load(**settings)):
            pass


@pytest.mark.parametrize(
    ("module", "settings", "extra"),
    [("redis", {"redis_queues": "jobs"}, r"lamina\[redis\]"), ("google.pubsub_v1", {"pubsub_subscriptions": "jobs-sub"}, r"lamina\[gcp\]")],
)
async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, module: str, settings: dict[str, Any], extra: str) -> None:
    known = dict(sys.modules)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else known.get(name))
    with pytest.raises(ConfigurationError, match=f"install {extra}"):
        async with open_brokers(load(**settings)):
            pass


async def test_the_emulator_is_found_by_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:8085")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "trial")

    assert ("127.0.0.1:8085", "trial") == (load().pubsub_emulator, load().pubsub_project)
