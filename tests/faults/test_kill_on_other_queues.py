"""The bridge is killed at each of its steps while jobs come from SQS, Redis or Pub/Sub; what became of a message its queue tells."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bridge.job import Event
from bridge.ledger.port import JobRecord
from bridge.redis.access import RedisAccess
from bridge.sinks.sqs import SqsQueues
from bridge.sources.redis_list import ListKeys, RedisSource
from bridge.steps import Step
from tests.support.ministack_server import Ministack
from tests.support.pubsub_server import PubsubServer, pubsub_server
from tests.support.redis_server import RedisServer
from tests.support.sqs import aws_of, depth_of, fresh_queue, lying_in
from tests.support.trial_bridge import Trial, message, open_trial_store, start, trial_settings

pytestmark = pytest.mark.timeout(400)
# At once: enough to keep the processors busy while leases run out.
_AT_ONCE = 6
_SECONDS = 90
POISON = b"\xff"


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A queue that a bridge takes its jobs from, of its own for one scenario."""

    # What a bridge is set to.
    settings: Mapping[str, Any]
    send: Callable[[bytes], Awaitable[None]]
    # How many messages are on it, leased ones included.
    left: Callable[[], Awaitable[int]]
    # Bodies that were put aside in the queue's own place; none where the ledger keeps them.
    errors: Callable[[], Awaitable[Sequence[bytes]]]


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """What is left once a bridge was killed at a step and another one has worked until idle."""

    killed: int
    ended: int
    jobs: Mapping[str, JobRecord]
    sent: list[tuple[str, str]]
    left: int
    dead: set[bytes]


@asynccontextmanager
async def _on_sqs(ministack: Ministack) -> AsyncIterator[Queue]:
    async with aws_of(ministack) as aws:
        queue = await fresh_queue(aws)
        for suffix in ("_error", "_skipped"):
            await fresh_queue(aws, name=f"{queue}{suffix}")
        sender = SqsQueues(aws)

        async def send(body: bytes) -> None:
            await sender.send(queue, body, message_id=str(uuid4()))

        async def errors() -> Sequence[bytes]:
            return [body for _, body in await lying_in(aws, f"{queue}_error")]

        settings = {"sqs_queues": (queue,), "aws_endpoint": ministack.endpoint}
        yield Queue(settings=settings, send=send, left=lambda: depth_of(aws, queue), errors=errors)


@asynccontextmanager
async def _on_redis(redis: RedisServer) -> AsyncIterator[Queue]:
    access, queue = RedisAccess(redis.url), f"jobs-{uuid4()}"
    source = RedisSource(access, [ListKeys.of(queue)], lease_seconds=60)

    async def send(body: bytes) -> None:
        await source.send(str(uuid4()), body, attributes={}, queue=queue)

    async def left() -> int:
        return sum(level.waiting + level.leased + level.delayed for level in await source.levels())

    async def errors() -> Sequence[bytes]:
        return []

    try:
        yield Queue(settings={"redis_queues": (queue,), "redis_url": redis.url}, send=send, left=left, errors=errors)
    finally:
        await source.close()
        await access.close()


@asynccontextmanager
async def _on_pubsub(server: PubsubServer) -> AsyncIterator[Queue]:
    name = f"jobs-{uuid4()}"
    server.create(name, f"{name}-sub")

    async def send(body: bytes) -> None:
        server.publish(name, body)

    async def left() -> int:
        return server.left(f"{name}-sub")

    async def errors() -> Sequence[bytes]:
        return []

    settings = {"pubsub_subscriptions": (f"{name}-sub",), "pubsub_project": "trial", "pubsub_emulator": server.address}
    yield Queue(settings=settings, send=send, left=left, errors=errors)


async def _run(trial: Trial) -> int:
    process = start(trial)
    try:
        await asyncio.to_thread(process.join, _SECONDS)
        assert process.exitcode is not None, trial.log.read_text()[-2000:]
        return process.exitcode
    finally:
        process.kill()


async def _scenario(queue: Queue, folder: Path, step: Step) -> Aftermath:
    long, flaky = message("long", parts=8, part_seconds=0.06), message("flaky", transient_failures=1)
    for body in (message("plain"), long, flaky, message("plain"), POISON):
        await queue.send(body)
    settings = trial_settings(folder, **queue.settings)
    stumbles = {"flaky"}
    killed = await _run(Trial(settings=settings, log=folder / "first.log", until_idle=True, kill_at=step, stumbles=stumbles))
    ended = await _run(Trial(settings=settings, log=folder / "second.log", until_idle=True, stumbles=stumbles))
    # A queue that does not tell its depth looks idle while a dead bridge's lease of a message lasts.
    until = asyncio.get_running_loop().time() + _SECONDS
    while ended == 0 and await queue.left() and asyncio.get_running_loop().time() < until:
        ended = await _run(Trial(settings=settings, log=folder / "third.log", until_idle=True, stumbles=stumbles))
    async with open_trial_store(folder) as store:
        return Aftermath(
            killed=killed,
            ended=ended,
            jobs={record.key: record for record in await store.jobs.list()},
            sent=[(json.loads(each.body)["job"], each.message_id) for each in await store.results.peek()],
            left=await queue.left(),
            dead={*await queue.errors(), *(letter.body for letter in await store.dead_letters.list())},
        )


@pytest.fixture
async def pubsub() -> AsyncIterator[PubsubServer]:
    async with pubsub_server() as server:
        yield server


@pytest.mark.parametrize("kind", ["sqs", "redis", "pubsub"])
async def test_a_bridge_that_is_killed_loses_nothing_and_does_nothing_twice(
    kind: str, ministack: Ministack, redis: RedisServer, pubsub: PubsubServer, tmp_path: Path
) -> None:
    """One test for all steps: some are played at once, as most of the time is waiting."""
    places = asyncio.Semaphore(_AT_ONCE)
    opened = {"sqs": partial(_on_sqs, ministack), "redis": partial(_on_redis, redis), "pubsub": partial(_on_pubsub, pubsub)}[kind]

    async def played(step: Step) -> Aftermath:
        folder = tmp_path / step.value
        folder.mkdir()
        async with places, opened() as queue:
            return await _scenario(queue, folder, step)

    aftermaths = await asyncio.gather(*map(played, Step))

    expected = {"plain": ("succeeded", 0), "long": ("succeeded", 0), "flaky": ("succeeded", 1)}
    ids = sorted((key, Event(type="completed", destination="", body=b"").message_id(key)) for key in expected)
    for step, after in zip(Step, aftermaths, strict=True):
        assert (-signal.SIGKILL, 0) == (after.killed, after.ended), step
        assert expected == {key: (record.state.value, record.attempts) for key, record in after.jobs.items()}, step
        assert ids == sorted(after.sent), step
        assert (0, {POISON}) == (after.left, after.dead), step
