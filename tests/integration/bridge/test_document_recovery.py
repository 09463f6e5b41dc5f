"""`bridge documents recover` on a real PostgreSQL and a real Redis, while others work on what it looks at."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from uuid import uuid4

import psycopg
import pytest
import redis as redis_client
from typer.testing import CliRunner

from bridge.__main__ import app
from bridge.commands.documents import _recover
from bridge.errors import TransientError
from bridge.job import Job, Outcome
from bridge.ledger.port import Claim
from bridge.settings import load
from bridge.sources.redis_list import RedisSource
from bridge.store import open_store
from bridge.transports.redis import open_redis, redis_source
from tests.support.ports import free_port
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.redis import RedisServer

GPU, CPU = "filot:ocr:gpu:queue", "filot:ocr:queue"
LOST, QUEUED, TAKEN, DONE = (f"{number}0000000-0000-4000-8000-000000000000" for number in "1234")


@pytest.fixture
def lists(own_redis: RedisServer) -> Iterator[redis_client.Redis]:
    with redis_client.Redis.from_url(own_redis.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def platform(postgres: PostgresServer, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """Its documents, all of them `processing`; the settings name it."""
    database = postgres.new_database()
    variables = {
        "DATABASE_URL": database,
        "REDIS_URL": own_redis.url,
        "CF_R2_BUCKET_NAME": "bucket",
        "CF_R2_ENDPOINT": "http://127.0.0.1:1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert 0 == CliRunner().invoke(app, ["migrate", "--with", "documents"]).exit_code
    with psycopg.connect(database, autocommit=True) as connection:
        for document in (LOST, QUEUED, TAKEN, DONE):
            connection.execute(
                "INSERT INTO documents (id, user_id, type, status) VALUES (CAST(%s AS uuid), gen_random_uuid(), 'KTP', 'processing')",
                (document,),
            )
        yield connection


async def recovered(count: int = 1, *, only_look: bool = False, meanwhile: Callable[[], object] = lambda: None) -> list[list[str]]:
    """What so many of it, at once, have queued. `meanwhile`: what others do once each has looked into Redis for the first time."""

    async def one(source: RedisSource) -> list[str]:
        ask, pending = source.lacking, [meanwhile]

        async def lacking(items: Sequence[str]) -> Sequence[str]:
            found = await ask(items)
            while pending:
                pending.pop()()
            return found

        source.lacking = lacking  # type: ignore[method-assign]
        return await _recover(source, only_look=only_look, settle_seconds=0)

    async with AsyncExitStack() as opened:
        settings = load()
        works: list[Awaitable[list[str]]] = []
        for _ in range(count):
            access = await opened.enter_async_context(open_redis(settings))
            works.append(one(await opened.enter_async_context(redis_source(settings, access))))
        return await asyncio.gather(*works)


@pytest.mark.parametrize("only_look", [False, True])
async def test_what_others_queue_take_or_end_while_it_looks_is_left_to_them(
    platform: psycopg.Connection, lists: redis_client.Redis, only_look: bool
) -> None:
    def meanwhile() -> None:
        lists.rpush(CPU, QUEUED)
        lists.sadd("filot:ocr:processing", TAKEN)
        platform.execute("UPDATE documents SET status = 'failed' WHERE id = CAST(%s AS uuid)", (DONE,))

    assert [[LOST]] == await recovered(meanwhile=meanwhile, only_look=only_look)
    assert ([] if only_look else [LOST.encode()]) == lists.lrange(GPU, 0, -1)
    if only_look:
        assert [b"filot:ocr:processing", CPU.encode()] == sorted(lists.keys())  # type: ignore[type-var]


async def test_two_at_once_queue_each_document_once(platform: psycopg.Connection, lists: redis_client.Redis) -> None:
    found = await recovered(2)
    everything = [LOST, QUEUED, TAKEN, DONE]
    assert everything == sorted(found[0] + found[1])
    assert everything == sorted(item.decode() for item in lists.lrange(GPU, 0, -1))  # type: ignore[union-attr]


async def test_a_document_that_was_done_before_goes_on_as_its_open_job(platform: psycopg.Connection, lists: redis_client.Redis) -> None:
    before, now, ended = str(uuid4()), str(uuid4()), str(uuid4())
    async with open_store(load()) as store:
        for document, correlation, ends in ((LOST, before, True), (LOST, now, False), (TAKEN, ended, True)):
            job = Job(key=f"{document}/{correlation}", system="cards", request={})
            claim = await store.ledger.claim(job, worker="tester", lease_seconds=60)
            assert isinstance(claim, Claim)
            if ends:
                await store.ledger.finish(claim, Outcome(succeeded=True, result={}))

    assert [[LOST, QUEUED, TAKEN, DONE]] == await recovered()
    ids = lists.hgetall("filot:ocr:gpu:correlation")
    assert now.encode() == ids[LOST.encode()]  # type: ignore[index]
    assert ended.encode() != ids[TAKEN.encode()], "it was asked for again: its job is another"  # type: ignore[index]


async def test_nothing_is_told_as_lost_while_redis_is_away(platform: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(TransientError, match="Redis, lacking"):
        await recovered()
