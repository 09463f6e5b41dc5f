"""What the lists and channels of Redis do beside what every source and sink does."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from bridge.errors import ConfigurationError, LeaseLostError, PermanentError, TransientError
from bridge.job import Message
from bridge.redis import access as access_module
from bridge.redis.access import RedisAccess, Script
from bridge.sinks.redis_channel import RedisSink
from bridge.sources.redis_list import ListKeys, RedisSource
from tests.support.patience import PATIENCE_SECONDS
from tests.support.servers.certificates import Authority
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.redis import RedisServer, redis_server

# Of leases that run out while a test waits for that. Others outlast whatever pause a machine makes, or a test lets them end (`_end`).
LEASE_SECONDS = 0.5
LONG_SECONDS = 3600.0
# Takes an item from each of four queues, and goes on with it as far as the queue's name says.
_HOLDER = """
import asyncio, sys
from bridge.redis.access import RedisAccess
from bridge.sources.redis_list import ListKeys, RedisSource

async def main(url, queue, lease):
    access = RedisAccess(url)
    held = {}
    for step in ("claim", "renew", "release", "acknowledge"):
        source = RedisSource(access, [ListKeys.of(f"{queue}:{step}")], lease_seconds=lease)
        [held[step]] = await source.receive(limit=1, wait_seconds=10)
        if step == "renew":
            await source.renew(held[step], lease_seconds=lease)
        if step == "release":
            await source.release(held[step], delay_seconds=0.2)
        if step == "acknowledge":
            await source.acknowledge(held[step])
    print("done", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause of the machine is no fault of the server."""
    monkeypatch.setattr(access_module, "_COMMAND_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def queue() -> str:
    return f"trial:{uuid4()}"


@pytest.fixture
async def client(redis: RedisServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(redis.url)
    yield client
    await client.aclose()


@asynccontextmanager
async def _source(
    url: str, *queues: str, lease_seconds: float = LONG_SECONDS, adopt_seconds: float = 0.0, urgent_in_a_row: int = 8
) -> AsyncIterator[RedisSource]:
    access = RedisAccess(url)
    keys = [ListKeys.of(queue) for queue in queues]
    source = RedisSource(access, keys, lease_seconds=lease_seconds, adopt_seconds=adopt_seconds, urgent_in_a_row=urgent_in_a_row)
    try:
        yield source
    finally:
        await source.close()
        await access.close()


async def _end(client: Redis, times: str) -> None:
    """Let leases or delays of a queue be over: those of the key."""
    await client.zadd(times, dict.fromkeys(await client.zrange(times, 0, -1), 1))


async def test_a_message_outlives_the_process_that_held_it(redis: RedisServer, queue: str) -> None:
    """Killed right after any of its scripts."""
    queues = [f"{queue}:{step}" for step in ("claim", "renew", "release", "acknowledge")]
    async with _source(redis.url, *queues) as source:
        for name in queues:
            await source.send("one", name.encode(), queue=name)
        holder = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _HOLDER, redis.url, queue, str(LEASE_SECONDS), stdout=subprocess.PIPE
        )
        try:
            assert holder.stdout is not None
            assert (await asyncio.wait_for(holder.stdout.readline(), 60)).strip() == b"done"
        finally:
            holder.kill()
            await holder.wait()

        await asyncio.sleep(LEASE_SECONDS * 1.2)
        found = [delivery for _ in range(4) for delivery in await source.receive(limit=1, wait_seconds=0)]

        assert [(name.encode(), 2) for name in queues[:3]] == [(delivery.body, delivery.receive_count) for delivery in found]


@pytest.mark.parametrize("item", ['{"nik": "3273010203850001"}', "BUDI SANTOSO", "budi@example.com"])
async def test_what_is_no_name_is_told_by_its_digest_as_ids_are_logged(redis: RedisServer, client: Redis, queue: str, item: str) -> None:
    await client.rpush(queue, item)
    async with _source(redis.url, queue) as source:
        [delivery] = await source.receive(limit=1, wait_seconds=2)
        assert (item.encode(), 64) == (delivery.body, len(delivery.message_id))
        await source.acknowledge(delivery)
        assert [] == await client.keys(f"{queue}*")


async def test_plain_items_are_messages_and_their_own_names(redis: RedisServer, client: Redis, queue: str) -> None:
    """As programs send them that know nothing of us: RPUSH."""
    document = str(uuid4())
    await client.rpush(queue, document, b'{"system": "trial", "text": "\xc2\xb5"}')
    async with _source(redis.url, queue) as source:
        first, second = await source.receive(limit=2, wait_seconds=2)

        assert (document, document.encode(), {}) == (first.message_id, first.body, dict(first.attributes))
        assert (64, b'{"system": "trial", "text": "\xc2\xb5"}') == (len(second.message_id), second.body)
        assert await client.sismember(f"{queue}:processing", document)
        await source.acknowledge(first)
        await source.acknowledge(second)
        assert [] == await client.keys(f"{queue}*"), "nothing is left behind"


async def test_equal_items_are_worked_on_one_after_the_other(redis: RedisServer, client: Redis, queue: str) -> None:
    await client.rpush(queue, "same", "same")
    async with _source(redis.url, queue) as source:
        [first] = await source.receive(limit=2, wait_seconds=1)
        assert not await source.receive(limit=2, wait_seconds=0)

        await source.acknowledge(first)
        await _end(client, f"{queue}:delayed")

        [second] = await source.receive(limit=2, wait_seconds=60)
        assert (b"same", 1) == (second.body, second.receive_count)


async def test_an_item_that_lies_in_two_lists_is_worked_on_once_by_two_programs(redis: RedisServer, client: Redis, queue: str) -> None:
    first, second = f"{queue}:first", f"{queue}:second"
    shared = {"locks": f"{queue}:lock:", "correlation": f"{queue}:correlation"}
    keys = [ListKeys.of(first, twin=second, **shared), ListKeys.of(second, twin=first, **shared)]
    items = [str(number) for number in range(20)]
    await client.rpush(first, *items)
    await client.rpush(second, *reversed(items), "alone")
    access = RedisAccess(redis.url)
    programs = [RedisSource(access, order, lease_seconds=LONG_SECONDS) for order in (keys, keys[::-1])]
    done: list[str] = []

    async def work(program: RedisSource) -> None:
        while found := await program.receive(limit=3, wait_seconds=0.3):
            for delivery in found:
                await asyncio.sleep(0.01)
                done.append(delivery.body.decode())
                await program.acknowledge(delivery)

    await asyncio.gather(*map(work, programs))
    assert sorted([*items, "alone"]) == sorted(done)
    assert [] == await client.keys(f"{queue}*"), "nothing is left behind"
    await access.close()


async def test_what_is_asked_for_in_another_list_while_it_is_worked_on_waits_until_that_has_ended(
    redis: RedisServer, client: Redis, queue: str
) -> None:
    """It may be another file by then."""
    first, second = f"{queue}:first", f"{queue}:second"
    shared = {"locks": f"{queue}:lock:", "correlation": f"{queue}:correlation"}
    keys = [ListKeys.of(first, twin=second, **shared), ListKeys.of(second, twin=first, **shared)]
    access = RedisAccess(redis.url)
    source = RedisSource(access, keys, lease_seconds=LONG_SECONDS)
    await client.rpush(first, "one")
    [begun] = await source.receive(limit=1, wait_seconds=1)
    await client.rpush(second, "one")
    assert not await source.receive(limit=1, wait_seconds=0.3)
    await source.acknowledge(begun)
    [again] = await source.receive(limit=1, wait_seconds=60)
    assert (second, b"one") == (again.queue, again.body)
    assert begun.attributes["correlationId"] != again.attributes["correlationId"]
    await access.close()


async def test_the_oldest_age_counts_from_when_an_item_came_and_not_from_when_it_got_to_the_head(
    redis: RedisServer, client: Redis, queue: str
) -> None:
    """Of what other programs put there, which tells no time."""
    async with _source(redis.url, queue) as source:

        async def oldest() -> float:
            return (await source.levels())[0].oldest_seconds

        async def done(count: int) -> None:
            for delivery in await source.receive(limit=count, wait_seconds=1):
                await source.acknowledge(delivery)

        assert 0 == await oldest()
        await client.rpush(queue, *"abcde")
        await oldest()
        await asyncio.sleep(0.4)
        # Ages are differences of whole milliseconds, and so up to one more than what has passed.
        began = time.monotonic()
        await asyncio.sleep(0.002)
        await client.rpush(queue, "f")
        await oldest()
        await done(4)
        assert 0.4 <= await oldest(), "of e, which came with the others"
        await done(1)
        assert 0 <= await oldest() <= time.monotonic() - began, "of f"
        began = time.monotonic()
        await asyncio.sleep(0.002)
        await client.rpush(queue, *"ghijkle")
        await done(1)
        assert await oldest() <= time.monotonic() - began, "e was asked for anew"
        await done(7)
        assert 0 == await oldest()


async def test_the_age_of_a_long_backlog_is_told_though_few_of_its_items_are_remembered(
    redis: RedisServer, client: Redis, queue: str
) -> None:
    async with _source(redis.url, queue) as source:
        for number in range(500):
            await client.rpush(queue, number)
            await source.levels()
        began = time.monotonic()
        await asyncio.sleep(0.3)
        passed = time.monotonic() - began
        [level] = await source.levels()
        assert passed <= level.oldest_seconds


async def test_an_id_that_is_no_text_holds_nothing_up(redis: RedisServer, client: Redis, queue: str) -> None:
    access = RedisAccess(redis.url)
    source = RedisSource(access, [_with_locks(queue)], lease_seconds=LEASE_SECONDS)
    await client.rpush(queue, "one")
    await client.hset(f"{queue}:correlation", "one", b"\xff\xfe")
    assert ["one"] == [delivery.message_id for delivery in await source.receive(limit=1, wait_seconds=1)]
    await access.close()


KINDS = ["processing", "leases", "delayed", "deliveries", "started", "holders", "bodies", "attributes", "correlation"]


def _with_locks(queue: str) -> ListKeys:
    return ListKeys.of(queue, locks=f"{queue}:lock:", correlation=f"{queue}:correlation")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_of_another_kind_costs_no_item(redis: RedisServer, client: Redis, queue: str, kind: str) -> None:
    """Whatever script comes across it: it is told, and the item comes once it is mended, once."""
    access = RedisAccess(redis.url)
    source = RedisSource(access, [_with_locks(queue)], lease_seconds=LEASE_SECONDS)
    await client.rpush(queue, "one")
    await client.set(f"{queue}:{kind}", "text")
    with pytest.raises(ConfigurationError, match="used for something else"):
        await source.receive(limit=1, wait_seconds=0)
    await client.delete(f"{queue}:{kind}")
    [held] = await source.receive(limit=1, wait_seconds=60)

    await client.set(f"{queue}:{kind}", "text")
    with pytest.raises(ConfigurationError, match="used for something else"):
        await source.release(held, delay_seconds=0.1)
    with pytest.raises(ConfigurationError, match="used for something else"):
        await source.requeue_stuck(seconds=0)
    await client.delete(f"{queue}:{kind}")
    source._look_seconds = 0.0  # it comes even where the test has deleted what says that it is worked on
    [again] = await source.receive(limit=2, wait_seconds=60)
    await source.acknowledge(again)
    assert not await source.receive(limit=2, wait_seconds=LEASE_SECONDS * 1.5)
    await access.close()


@asynccontextmanager
async def _as_account(server: RedisServer, *rules: str) -> AsyncIterator[RedisAccess]:
    name = f"worker-{uuid4()}"
    server.command("ACL", "SETUSER", name, "reset", "on", ">secret", *rules)
    access = RedisAccess(f"redis://{name}:secret@127.0.0.1:{server.port}/0")
    try:
        yield access
    finally:
        await access.close()
        server.command("ACL", "DELUSER", name)


@pytest.mark.parametrize("alike_the_platforms", [False, True])
async def test_an_account_needs_no_more_than_its_own_keys_and_channels(redis: RedisServer, queue: str, alike_the_platforms: bool) -> None:
    keys = _with_locks(queue) if alike_the_platforms else ListKeys.of(queue)
    async with _as_account(redis, f"~{queue}*", f"&{queue}*", "+@all", "-@dangerous") as access:
        source = RedisSource(access, [keys], lease_seconds=LEASE_SECONDS, adopt_seconds=1)
        assert await source.enqueue("one")
        [first] = await source.receive(limit=1, wait_seconds=0.1)
        await source.renew(first, lease_seconds=LEASE_SECONDS)
        await source.release(first, delay_seconds=0)
        [again] = await source.receive(limit=1, wait_seconds=1)
        await source.acknowledge(again)
        assert await source.send("two", b"body")
        assert 1 == (await source.levels())[0].waiting
        await access.store_and_publish(f"{queue}:result", f"{queue}:results", b"{}", keep_seconds=1, message_id="id", mark="1")


@pytest.mark.parametrize("command", ["sadd", "zadd", "hset", "set", "exists"])
async def test_what_an_account_may_not_do_costs_no_item(redis: RedisServer, client: Redis, queue: str, command: str) -> None:
    await client.rpush(queue, "one", "two")
    async with _as_account(redis, f"~{queue}*", "+@all", f"-{command}") as access:
        source = RedisSource(access, [_with_locks(queue)], lease_seconds=LEASE_SECONDS)
        with pytest.raises(ConfigurationError, match="allow our user"):
            await source.receive(limit=2, wait_seconds=0)

    assert [b"one", b"two"] == await client.lrange(queue, 0, -1)
    assert 0 == await client.scard(f"{queue}:processing") + await client.zcard(f"{queue}:leases")


async def test_a_count_or_a_moment_that_is_none_holds_nothing_up(redis: RedisServer, client: Redis, queue: str) -> None:
    """As another program wrote it."""
    await client.rpush(queue, "one", "two")
    await client.hset(f"{queue}:deliveries", "one", "1.5")
    await client.sadd(f"{queue}:processing", "three")
    await client.hset(f"{queue}:started", "three", "2026-11-29T07:00:00Z")
    async with _source(redis.url, queue) as source:
        assert [("one", 1), ("two", 1)] == [(one.message_id, one.receive_count) for one in await source.receive(limit=2, wait_seconds=1)]
        assert ["three"] == await source.requeue_stuck(seconds=300)


async def test_what_waits_for_another_try_when_the_last_bridge_stops_can_be_put_back(redis: RedisServer, client: Redis, queue: str) -> None:
    """For programs that know the list alone."""
    await client.rpush(queue, "one", "two")
    async with _source(redis.url, queue) as source:
        for delivery, delay in zip(await source.receive(limit=2, wait_seconds=1), (600, 600), strict=True):
            await source.release(delivery, delay_seconds=delay)
        assert [] == await source.requeue_stuck(seconds=300)
        await client.zadd(f"{queue}:delayed", {"one": 1})  # as once its delay is over
        assert ["one"] == await source.requeue_stuck(seconds=300, only_look=True)
        assert 0 == await client.llen(queue)
        assert ["one"] == await source.requeue_stuck(seconds=300)
        assert ([b"one"], [b"two"]) == (await client.lrange(queue, 0, -1), await client.zrange(f"{queue}:delayed", 0, -1))


async def test_what_another_program_ended_and_was_asked_for_again_comes_at_once(redis: RedisServer, client: Redis, queue: str) -> None:
    await client.sadd(f"{queue}:processing", "one")
    async with _source(redis.url, queue, adopt_seconds=60) as source:
        assert not await source.receive(limit=1, wait_seconds=0), "seen, and left to that program for a minute"
        await client.srem(f"{queue}:processing", "one")
        await client.rpush(queue, "one")

        assert ["one"] == [delivery.message_id for delivery in await source.receive(limit=1, wait_seconds=1)]


async def test_what_another_program_takes_for_stuck_while_we_work_on_it_is_not_begun_again(
    redis: RedisServer, client: Redis, queue: str
) -> None:
    await client.rpush(queue, "one")
    async with _source(redis.url, queue) as source:
        [held] = await source.receive(limit=1, wait_seconds=1)
        await client.srem(f"{queue}:processing", "one")
        await client.rpush(queue, "one")

        assert not await source.receive(limit=1, wait_seconds=LEASE_SECONDS / 3)
        await source.renew(held, lease_seconds=60)


async def test_asking_again_leaves_the_id_of_what_is_worked_on_in_the_other_list(redis: RedisServer, client: Redis, queue: str) -> None:
    """A try that follows goes on with the same job."""
    first, second = f"{queue}:first", f"{queue}:second"
    shared = {"locks": f"{queue}:lock:", "correlation": f"{queue}:correlation"}
    access = RedisAccess(redis.url)
    keys = [ListKeys.of(first, twin=second, **shared), ListKeys.of(second, twin=first, **shared)]
    source = RedisSource(access, keys, lease_seconds=LONG_SECONDS)
    await client.rpush(second, "one")
    [begun] = await source.receive(limit=1, wait_seconds=1)
    assert await source.enqueue("one", queue=first)

    assert begun.attributes["correlationId"].encode() == await client.hget(f"{queue}:correlation", "one")
    await access.close()


async def test_a_lock_lasts_as_long_as_it_is_told_to_and_no_longer_than_its_item(redis: RedisServer, client: Redis, queue: str) -> None:
    access = RedisAccess(redis.url)
    source = RedisSource(access, [_with_locks(queue)], lease_seconds=LEASE_SECONDS, lock_seconds=600)
    await client.rpush(queue, "one")
    [held] = await source.receive(limit=1, wait_seconds=1)
    assert 500 < await client.ttl(f"{queue}:lock:one") <= 600
    await client.expire(f"{queue}:lock:one", 300)
    await source.renew(held, lease_seconds=LEASE_SECONDS)
    assert 500 < await client.ttl(f"{queue}:lock:one") <= 600

    [again] = await source.receive(limit=1, wait_seconds=60)
    assert 2 == again.receive_count, "a lock whose holder has died holds nothing up"
    await source.acknowledge(again)
    assert not await client.exists(f"{queue}:lock:one")
    await access.close()


@pytest.mark.parametrize(("adopt_seconds", "wait_seconds", "expected"), [(0.4, 60.0, [b"left"]), (0.0, 1.0, [])])
async def test_what_another_program_left_in_work_is_adopted_if_wanted(
    redis: RedisServer, client: Redis, queue: str, adopt_seconds: float, wait_seconds: float, expected: list[bytes]
) -> None:
    await client.sadd(f"{queue}:processing", "left")
    async with _source(redis.url, queue, adopt_seconds=adopt_seconds) as source:
        assert not await source.receive(limit=1, wait_seconds=0)
        assert expected == [delivery.body for delivery in await source.receive(limit=1, wait_seconds=wait_seconds)]


async def test_what_another_program_finishes_is_not_done_again(redis: RedisServer, client: Redis, queue: str) -> None:
    await client.sadd(f"{queue}:processing", "left")
    async with _source(redis.url, queue, adopt_seconds=0.3) as source:
        assert not await source.receive(limit=1, wait_seconds=0)
        await client.srem(f"{queue}:processing", "left")

        assert not await source.receive(limit=1, wait_seconds=0.8)


async def test_urgent_items_do_not_starve_the_others(redis: RedisServer, client: Redis, queue: str) -> None:
    urgent, rest = f"{queue}:urgent", f"{queue}:rest"
    await client.rpush(urgent, *(f"u{number}" for number in range(6)))
    await client.rpush(rest, "r0", "r1")
    async with _source(redis.url, urgent, rest, urgent_in_a_row=2) as source:
        found = [(await source.receive(limit=1, wait_seconds=1))[0].body.decode() for _ in range(8)]

    assert ["u0", "u1", "r0", "u2", "u3", "r1", "u4", "u5"] == found


class _SlowAccess(RedisAccess):
    """What a claim brings is on its way until `arrives` is set."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.claimed, self.arrives = asyncio.Event(), asyncio.Event()

    async def run(self, script: Script, keys: Sequence[str], *arguments: bytes | str | int) -> Any:
        answer = await super().run(script, keys, *arguments)
        if script.name == "claim" and answer:
            self.claimed.set()
            await self.arrives.wait()
        return answer


async def test_a_receiver_that_is_cancelled_loses_nothing(redis: RedisServer, client: Redis, queue: str) -> None:
    """Not even when the server has run its script already, and only the answer is still on its way."""
    access = _SlowAccess(redis.url)
    source = RedisSource(access, [ListKeys.of(queue)], lease_seconds=LONG_SECONDS)
    async with _source(redis.url, queue) as rival:
        await rival.send("one", b"body")
        receiving = asyncio.create_task(source.receive(limit=1, wait_seconds=60))
        await asyncio.wait_for(access.claimed.wait(), PATIENCE_SECONDS)
        assert await client.sismember(f"{queue}:processing", "one")
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        access.arrives.set()
        await source.close()

        assert [b"body"] == [delivery.body for delivery in await rival.receive(limit=1, wait_seconds=0)]
    await access.close()


async def test_a_receipt_of_a_former_holder_is_refused_by_every_script(redis: RedisServer, queue: str) -> None:
    async with _source(redis.url, queue, lease_seconds=LEASE_SECONDS) as source, _source(redis.url, queue) as rival:
        await source.send("one", b"body")
        [stale] = await source.receive(limit=1, wait_seconds=1)
        [fresh] = await rival.receive(limit=1, wait_seconds=60)
        await rival.renew(fresh, lease_seconds=LONG_SECONDS)

        await source.acknowledge(stale)
        await source.release(stale, delay_seconds=0)
        with pytest.raises(LeaseLostError):
            await source.renew(stale, lease_seconds=30)

        assert 1 == await source.depth()
        assert not await source.receive(limit=1, wait_seconds=0)


async def test_a_cut_connection_is_a_passing_fault(redis: RedisServer, queue: str) -> None:
    address = "redis://127.0.0.1:{}/0"
    async with FaultProxy(redis.port) as proxy, _source(address.format(proxy.port), queue, lease_seconds=LEASE_SECONDS) as source:
        await source.send("one", b"body")
        proxy.refuse()
        with pytest.raises(TransientError):
            await source.receive(limit=1, wait_seconds=0)
        proxy.mend()

        assert [b"body"] == [delivery.body for delivery in await source.receive(limit=1, wait_seconds=60)]


async def test_a_server_that_was_restarted_gets_the_scripts_again(redis: RedisServer, queue: str) -> None:
    async with _source(redis.url, queue) as source:
        await source.send("one", b"body")
        redis.command("SCRIPT", "FLUSH")

        assert 1 == len(await source.receive(limit=1, wait_seconds=1))


async def test_a_replica_that_takes_no_writes_is_a_passing_fault(queue: str) -> None:
    """As during a fail-over."""
    with redis_server() as server:
        server.command("REPLICAOF", "127.0.0.1", "1")
        async with _source(server.url, queue) as source:
            with pytest.raises(TransientError):
                await source.send("one", b"body")


async def test_sentinels_are_asked_where_the_server_is(redis: RedisServer, queue: str) -> None:
    with redis_server(sentinel_of=redis) as sentinel:
        async with _source(f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0", queue) as source:
            assert await source.send("one", b"body")
            assert len(await source.receive(limit=1, wait_seconds=1)) == 1


async def test_tls_is_spoken_and_the_certificate_is_checked(redis: RedisServer, tmp_path: Path) -> None:
    authority, stranger = Authority(), Authority("somebody else")
    certificate, key = authority.issue("localhost").write(tmp_path, "server")
    for name, signer in (("ca", authority), ("other", stranger)):
        (tmp_path / f"{name}.crt").write_bytes(signer.certificate)
    async with _tls_in_front_of(redis.port, certificate, key) as port:
        trusting = RedisAccess(f"rediss://127.0.0.1:{port}/0", tls_ca=tmp_path / "ca.crt")
        await trusting.probe()
        await trusting.close()
        distrusting = RedisAccess(f"rediss://127.0.0.1:{port}/0", tls_ca=tmp_path / "other.crt")
        with pytest.raises(TransientError, match="certificate"):
            await distrusting.probe()
        await distrusting.close()


async def test_a_wrong_password_names_the_variable() -> None:
    with redis_server() as server:
        server.command("CONFIG", "SET", "requirepass", "right")
        access = RedisAccess(f"redis://:wrong@127.0.0.1:{server.port}/0")
        with pytest.raises(ConfigurationError, match="BRIDGE_REDIS_URL"):
            await access.probe()
        await access.close()


async def test_a_key_of_another_kind_names_the_variable(redis: RedisServer, client: Redis, queue: str) -> None:
    await client.set(queue, "text")
    async with _source(redis.url, queue) as source:
        with pytest.raises(ConfigurationError, match="BRIDGE_REDIS_QUEUES"):
            await source.receive(limit=1, wait_seconds=0)


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:6379", "http://localhost", "redis+sentinel://localhost:26379", "redis+sentinel://h:x/main", "redis://h:6379/one"),
        *("redis://h:6379?keyPrefix=a", "redis://h:6379/0?rejectUnauthorized=false"),
        *("redis://h?protocol=7", "rediss://h:6380/0?ssl_cert_reqs=CERT_SOME"),
    ],
)
def test_a_wrong_url_tells_what_was_expected(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"BRIDGE_REDIS_URL.*REDIS_URL.*redis://\[user:password@\]host:port"):
        RedisAccess(url)


@pytest.mark.parametrize("word", ["required", "CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE"])
async def test_celerys_words_for_what_is_asked_of_a_certificate_are_read(word: str) -> None:
    await RedisAccess(f"rediss://h:6380/0?ssl_cert_reqs={word}").close()


async def test_an_address_of_a_client_of_node_is_read(redis: RedisServer) -> None:
    access = RedisAccess(f"{redis.url}?family=0&allowUsernameInURI=true&connectTimeout=10000&db=1")
    await access.probe()
    await access.close()


async def test_a_result_is_published_and_stored_for_a_while(redis: RedisServer, client: Redis, queue: str) -> None:
    access = RedisAccess(redis.url)
    async with client.pubsub() as listener:
        await listener.subscribe(queue)
        await RedisSink(access, channel=queue, keep_seconds=600).send(
            Message(message_id="id", job_key="job-1", type="completed", destination="", body=b'{"success": true}')
        )
        heard = [await listener.get_message(timeout=60) for _ in range(2)][-1]
    await access.close()

    assert heard is not None
    assert b'{"success": true}' == heard["data"] == await client.get(f"{queue}:job-1:completed")
    assert 500 < await client.ttl(f"{queue}:job-1:completed") <= 600


async def test_a_result_that_is_sent_again_is_published_once_unless_it_was_asked_for_anew(
    redis: RedisServer, client: Redis, queue: str
) -> None:
    """Its relay was killed before it could note that it had sent it; the job was begun anew, and came to the same."""
    access = RedisAccess(redis.url)
    sink = RedisSink(access, channel=queue, keep_seconds=600)
    first = Message(message_id="id", job_key="job-1", type="failed", destination="", body=b"same", asked_at=1.5)
    other = replace(first, message_id="other", job_key="job-2", body=b"other")
    async with client.pubsub() as listener:
        await listener.subscribe(queue)
        for message in (first, first, replace(first, asked_at=2.5), other, first, replace(first, asked_at=3.5, body=b"end")):
            await sink.send(message)
        heard = []
        while b"end" not in heard:
            if told := await listener.get_message(timeout=60, ignore_subscribe_messages=True):
                heard.append(told["data"])
    keys = sorted(await client.keys(f"{queue}:*"))
    await access.close()

    # The fifth was put there before the third, which it follows: no relay sends them so.
    assert [b"same", b"same", b"other", b"same", b"end"] == heard
    assert [f"{queue}:job-{key}".encode() for key in ("1:failed", "1:failed:sent:id", "2:failed", "2:failed:sent:other")] == keys
    assert all([500 < await client.ttl(key) <= 600 for key in keys])


async def test_a_result_that_may_not_be_published_is_sent_again(redis: RedisServer, client: Redis, queue: str) -> None:
    message = Message(message_id="id", job_key="job-1", type="completed", destination="", body=b"{}", asked_at=1.5)
    async with _as_account(redis, f"~{queue}*", "+@all", "resetchannels") as access:
        with pytest.raises(ConfigurationError, match="allow our user"):
            await RedisSink(access, channel=queue).send(message)
    access = RedisAccess(redis.url)
    async with client.pubsub() as listener:
        await listener.subscribe(queue)
        await RedisSink(access, channel=queue).send(message)
        heard = [await listener.get_message(timeout=60) for _ in range(2)][-1]
    await access.close()

    assert heard is not None
    assert b"{}" == heard["data"]


@pytest.mark.parametrize("evicted", [("leases",), ("processing",), ("leases", "processing"), ("holders",)])
@pytest.mark.parametrize("alike_the_platforms", [False, True])
async def test_what_a_dead_bridge_had_comes_again_though_the_server_has_evicted_a_key(
    redis: RedisServer, client: Redis, queue: str, evicted: Sequence[str], alike_the_platforms: bool
) -> None:
    keys = _with_locks(queue) if alike_the_platforms else ListKeys.of(queue)
    access = RedisAccess(redis.url)
    await client.rpush(queue, "one")
    adopt_seconds = LEASE_SECONDS if evicted == ("holders",) else 0.0
    assert await RedisSource(access, [keys], lease_seconds=LEASE_SECONDS).receive(limit=1, wait_seconds=60)
    assert len(evicted) == await client.delete(*(f"{queue}:{name}" for name in evicted))

    other = RedisSource(access, [keys], lease_seconds=LEASE_SECONDS, adopt_seconds=adopt_seconds)
    [again] = await other.receive(limit=1, wait_seconds=60)
    await other.acknowledge(again)
    assert ("one", []) == (again.message_id, await client.keys(f"{queue}*"))
    await access.close()


async def test_what_a_dead_bridge_had_comes_again_soon_though_the_servers_clock_was_set_back(
    redis: RedisServer, client: Redis, queue: str
) -> None:
    access = RedisAccess(redis.url)
    await client.rpush(queue, "one")
    assert await RedisSource(access, [_with_locks(queue)], lease_seconds=LEASE_SECONDS).receive(limit=1, wait_seconds=60)
    # Leases end by the server's clock: for one that was set back by a day, a day later.
    await client.zincrby(f"{queue}:leases", 24 * 3600 * 1000, "one")

    [again] = await RedisSource(access, [_with_locks(queue)], lease_seconds=LEASE_SECONDS).receive(limit=1, wait_seconds=60)
    assert "one" == again.message_id
    await access.close()


async def test_a_bridge_with_a_longer_lease_keeps_its_item_beside_others(redis: RedisServer, client: Redis, queue: str) -> None:
    access = RedisAccess(redis.url)
    await client.rpush(queue, "one")
    [delivery] = await RedisSource(access, [_with_locks(queue)], lease_seconds=1800).receive(limit=1, wait_seconds=60)
    until = await client.zscore(f"{queue}:leases", "one")

    other = RedisSource(access, [_with_locks(queue)], lease_seconds=LEASE_SECONDS, look_seconds=LEASE_SECONDS / 4)
    assert not await other.receive(limit=1, wait_seconds=3 * LEASE_SECONDS)
    assert until == await client.zscore(f"{queue}:leases", delivery.message_id)
    await access.close()


async def test_what_another_program_has_ended_in_our_place_is_not_taken_for_evicted(redis: RedisServer, client: Redis, queue: str) -> None:
    """It took it for stuck, did it, and has taken its id away."""
    access = RedisAccess(redis.url)
    source = RedisSource(access, [_with_locks(queue)], lease_seconds=LEASE_SECONDS)
    await client.rpush(queue, "one")
    assert await source.receive(limit=1, wait_seconds=60)
    await client.srem(f"{queue}:processing", "one")
    await client.hdel(f"{queue}:correlation", "one")
    await _end(client, f"{queue}:leases")

    assert not await source.receive(limit=1, wait_seconds=3 * LEASE_SECONDS)
    assert 0 == await client.zcard(f"{queue}:leases")
    await access.close()


def test_a_result_key_that_cannot_be_made_names_the_variable(redis: RedisServer) -> None:
    with pytest.raises(ConfigurationError, match="BRIDGE_REDIS_RESULT_KEY"):
        RedisSink(RedisAccess(redis.url), key="{chanel}")


@asynccontextmanager
async def _tls_in_front_of(target: int, certificate: Path, key: Path) -> AsyncIterator[int]:
    """The wheel's server knows no TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", target)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, behind_writer), pump(behind_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("note", ["started", "lock"])
async def test_another_programs_next_try_of_an_item_is_left_to_it_as_long_as_its_first(
    redis: RedisServer, client: Redis, queue: str, note: str
) -> None:
    """Though it began while the lease still ran that the first was given; either note of it tells."""
    access = RedisAccess(redis.url)
    left = {"adopt_seconds": 3600.0, "look_seconds": 3600.0, "lock_seconds": 7200.0}
    source = RedisSource(access, [_with_locks(queue)], lease_seconds=LONG_SECONDS, **left)
    await client.sadd(f"{queue}:processing", "one")
    assert not await source.receive(limit=1, wait_seconds=0)
    await client.srem(f"{queue}:processing", "one")

    await client.sadd(f"{queue}:processing", "one")
    begun = int(time.time() * 1000)
    if note == "started":
        await client.hset(f"{queue}:started", "one", str(begun))
    else:
        await client.set(f"{queue}:lock:one", "theirs", ex=7200)
    await _end(client, f"{queue}:leases")  # as an hour after it was first seen
    assert not await source.receive(limit=1, wait_seconds=0.3)
    assert (b"theirs" if note == "lock" else None) == await client.get(f"{queue}:lock:one")
    assert begun + 3600_000 - 5 <= await client.zscore(f"{queue}:leases", "one") <= int(time.time() * 1000) + 3600_000

    # An hour after it was begun.
    if note == "started":
        await client.hset(f"{queue}:started", "one", str(begun - 3600_001))
    else:
        await client.expire(f"{queue}:lock:one", 3599)
    await _end(client, f"{queue}:leases")
    assert ["one"] == [delivery.message_id for delivery in await source.receive(limit=1, wait_seconds=60)]
    await access.close()


async def test_an_item_that_another_program_has_ended_leaves_no_lease_behind(redis: RedisServer, client: Redis, queue: str) -> None:
    await client.sadd(f"{queue}:processing", "one", "two")
    async with _source(redis.url, queue, adopt_seconds=60) as source:
        source._look_seconds = 0.0
        await source.receive(limit=1, wait_seconds=0)
        await client.srem(f"{queue}:processing", "one")
        await source.receive(limit=1, wait_seconds=0)
        assert [b"two"] == await client.zrange(f"{queue}:leases", 0, -1)


async def test_what_goes_back_untried_is_not_counted_for_other_programs(redis: RedisServer, client: Redis, queue: str) -> None:
    """Who take the count for tries, and give a document up after some."""
    await client.rpush(queue, "one")
    async with _source(redis.url, queue) as source:
        counts = []
        for tried in (False, False, True, False):
            [delivery] = await source.receive(limit=1, wait_seconds=1)
            await source.release(delivery, delay_seconds=0, tried=tried)
            counts.append(await client.hget(f"{queue}:deliveries", "one"))
        assert [b"0", b"0", b"1", b"1"] == counts


async def test_what_was_sent_is_not_told_when_the_server_does_not_know_the_command(queue: str) -> None:
    with redis_server("--rename-command", "EVALSHA", "") as server:
        access = RedisAccess(server.url)
        with pytest.raises(PermanentError, match=r"unknown command 'EVALSHA'$"):
            await access.store_and_publish(f"{queue}:result", f"{queue}:results", b"BUDI", keep_seconds=1, message_id="id", mark="1")
        await access.close()
