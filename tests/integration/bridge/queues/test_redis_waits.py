"""How an idle bridge waits for what comes into its lists of Redis, and for what is due there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bridge.errors import TransientError
from bridge.redis import access as access_module
from bridge.redis.access import RedisAccess, Script
from bridge.sources import redis_list
from bridge.sources.redis_list import ListKeys, RedisSource
from tests.support.patience import PATIENCE_SECONDS, until
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.redis import RedisServer, redis_server

LISTS = ("first", "second")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Of its own: what it counts is ours."""
    with redis_server() as server:
        yield server


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause of the machine is no fault of the server, which would cost a connection."""
    monkeypatch.setattr(access_module, "_COMMAND_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url)
    yield client
    await client.aclose()


@pytest.fixture
def looks_never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is woken, or knows what is due: else what is waited for would come too late for any patience."""
    monkeypatch.setattr(redis_list, "_IDLE_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(redis_list, "_IDLE_POLL_SECONDS", 3600.0)


@asynccontextmanager
async def _source(url: str, access: RedisAccess | None = None) -> AsyncIterator[RedisSource]:
    access = access or RedisAccess(url)
    source = RedisSource(access, [ListKeys.of(name) for name in LISTS], lease_seconds=3600)
    try:
        yield source
    finally:
        await source.close()
        await access.close()


async def _taken(source: RedisSource) -> bytes:
    async with asyncio.timeout(PATIENCE_SECONDS):
        [delivery] = await source.receive(limit=1, wait_seconds=3600)
        await source.acknowledge(delivery)
    return delivery.body


async def _taken_after_faults(source: RedisSource) -> bytes:
    """As a worker takes: a connection that the server closed meanwhile is one more passing fault."""
    while True:
        with suppress(TransientError):
            return await _taken(source)


async def _blocked(client: Redis, count: int = len(LISTS)) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await client.info("clients"))["blocked_clients"] != count:
            await asyncio.sleep(0.005)


async def _connections(client: Redis) -> int:
    return int((await client.info("stats"))["total_connections_received"])


async def test_an_idle_bridge_asks_little_and_keeps_its_connections(server: RedisServer, client: Redis) -> None:
    async def commands() -> int:
        told = await client.info("commandstats")
        return sum(told.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "blmove"))

    before, connections = await commands(), await _connections(client)
    async with _source(server.url) as source:
        for wait_seconds in (1, 4):
            assert not await source.receive(limit=1, wait_seconds=wait_seconds)
        assert await commands() - before < 30
    assert await _connections(client) - connections <= len(LISTS) + 1


async def test_a_busy_bridge_keeps_its_connections(server: RedisServer, client: Redis) -> None:
    """Whichever of its lists things come into, and whether it was woken or looked."""
    connections = await _connections(client)
    async with _source(server.url) as source:
        for number in range(20):
            receiving = asyncio.create_task(_taken(source))
            await _blocked(client)
            await asyncio.sleep(0.01 * (number % 3 == 0))
            await client.rpush(LISTS[number % 2], str(number))
            assert str(number).encode() == await receiving
            assert not await source.receive(limit=1, wait_seconds=0.06)
    assert await _connections(client) - connections <= len(LISTS) + 1


@pytest.mark.usefixtures("looks_never")
async def test_what_comes_wakes_an_idle_bridge_in_whichever_of_its_lists(server: RedisServer, client: Redis) -> None:
    async with _source(server.url) as source:
        for name in LISTS * 3:
            receiving = asyncio.create_task(_taken(source))
            await _blocked(client)
            await client.rpush(name, name)
            assert name.encode() == await receiving


@pytest.mark.usefixtures("looks_never")
async def test_what_comes_between_a_look_and_the_wait_is_taken(server: RedisServer, client: Redis) -> None:
    """While the wait for the list goes on that the last look began, and where there is none."""

    async def push() -> None:
        await client.rpush(LISTS[0], "late")

    access = _Interleaved(server.url)
    async with _source(server.url, access) as source:
        for _ in range(2):
            access.after("claim", push, times=len(LISTS))
            assert b"late" == await _taken(source)
            assert b"late" == await _taken(source)
            assert not await source.receive(limit=1, wait_seconds=0.1)


class _Interleaved(RedisAccess):
    """Something happens when the server has run a script, before we hear of it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._after: dict[str, tuple[Callable[[], Awaitable[None]], int]] = {}

    def after(self, script: str, happens: Callable[[], Awaitable[None]], *, times: int = 1) -> None:
        self._after[script] = (happens, times)

    async def run(self, script: Script, keys: Sequence[str], *arguments: bytes | str | int) -> Any:
        answer = await super().run(script, keys, *arguments)
        happens, times = self._after.pop(script.name, (None, 0))
        if happens is not None:
            if times > 1:
                self._after[script.name] = (happens, times - 1)
            await happens()
        return answer


@pytest.mark.usefixtures("looks_never")
async def test_what_is_given_back_with_a_delay_comes_when_that_is_over(server: RedisServer, client: Redis) -> None:
    """Whether it was given back before the bridge began to wait, while it waited, or while it looked."""
    access = _Interleaved(server.url)
    async with _source(server.url, access) as source:
        for moment in ("before", "meanwhile", "looking"):
            await client.rpush(LISTS[0], moment)
            [held] = await source.receive(limit=1, wait_seconds=1)

            async def give_back() -> None:
                await source.release(held, delay_seconds=0.5)  # noqa: B023

            began = time.monotonic()
            if moment == "before":
                await give_back()
            if moment == "looking":
                await asyncio.sleep(redis_list._REAP_SECONDS * 2)
                access.after("reap", give_back)
                began = time.monotonic()
            receiving = asyncio.create_task(_taken(source))
            if moment == "meanwhile":
                await _blocked(client)
                began = time.monotonic()
                await give_back()
            assert moment.encode() == await receiving
            assert time.monotonic() - began >= 0.49


async def test_an_item_that_comes_while_the_wait_is_given_up_stays_where_it_is(server: RedisServer, client: Redis) -> None:
    """The server has served the wait, and nobody hears of it."""
    async with FaultProxy(server.port) as proxy:
        async with _source(f"redis://127.0.0.1:{proxy.port}/0") as source:
            receiving = asyncio.create_task(source.receive(limit=1, wait_seconds=3600))
            await _blocked(client)
            proxy.swallow()
            await client.rpush(LISTS[0], "one", "two")
            assert (await client.info("clients"))["blocked_clients"] < len(LISTS), "it was served"
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        assert [b"one", b"two"] == await client.lrange(LISTS[0], 0, -1)
    async with _source(server.url) as rival:
        assert [b"one", b"two"] == [await _taken(rival) for _ in range(2)]


async def test_a_bridge_that_stops_waits_for_nothing(server: RedisServer, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "_WAIT_SECONDS", 3600.0)
    monkeypatch.setattr(access_module, "_COMMAND_SECONDS", 3600.0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        async with _source(server.url) as source:
            receiving = asyncio.create_task(source.receive(limit=1, wait_seconds=3600))
            await _blocked(client)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
        await _blocked(client, 0)


async def test_a_wait_goes_on_when_the_server_is_back(server: RedisServer, client: Redis) -> None:
    async with FaultProxy(server.port) as proxy, _source(f"redis://127.0.0.1:{proxy.port}/0") as source:
        receiving = asyncio.create_task(source.receive(limit=1, wait_seconds=3600))
        await _blocked(client)
        proxy.refuse()
        with pytest.raises(TransientError):
            await receiving
        proxy.mend()
        receiving = asyncio.create_task(_taken(source))
        await _blocked(client)
        await client.rpush(LISTS[1], "one")
        assert b"one" == await receiving


@pytest.mark.usefixtures("looks_never")
async def test_a_fail_over_is_a_passing_fault_of_a_wait_and_what_comes_wakes_as_before(server: RedisServer, client: Redis) -> None:
    """The server ends the waits when it becomes a replica, and lets nobody begin one until it is the master again."""
    access = RedisAccess(server.url)
    async with _source(server.url, access) as source:
        receiving = asyncio.create_task(source.receive(limit=1, wait_seconds=3600))
        await _blocked(client)
        server.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(TransientError):
            await receiving
        ended = access.wait_for_item(LISTS, seconds=60, ended=asyncio.get_running_loop().create_future())
        with pytest.raises(TransientError):
            await ended
        server.command("REPLICAOF", "NO", "ONE")
        receiving = asyncio.create_task(_taken_after_faults(source))
        await _blocked(client)
        await client.rpush(LISTS[0], "one")
        assert b"one" == await receiving


@pytest.mark.parametrize("why", ["older", "forbidden"])
async def test_where_the_server_lets_nobody_wait_it_is_asked(why: str) -> None:
    """A Redis before 6.2 does not know the command."""
    with redis_server(*(["--rename-command", "BLMOVE", ""] if why == "older" else [])) as server:
        if why == "forbidden":
            server.command("ACL", "SETUSER", "worker", "on", ">secret", "~*", "&*", "+@all", "-blmove")
        access = RedisAccess(f"redis://worker:secret@127.0.0.1:{server.port}/0" if why == "forbidden" else server.url)
        async with _source(server.url, access) as source, Redis.from_url(server.url) as client:
            with capture_logs() as told:
                receiving = asyncio.create_task(_taken(source))
                await until(lambda: not access.wakes)
            assert ["redis_wakes_nobody"] == [line["event"] for line in told]
            await client.rpush(LISTS[1], "one")
            assert b"one" == await receiving
            await client.rpush(LISTS[1], "two")
            [held] = await source.receive(limit=1, wait_seconds=PATIENCE_SECONDS)
            await source.release(held, delay_seconds=0.1)
            assert b"two" == await _taken(source)
