"""Dead letters of the ledger, sent again over a crash."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from redis.asyncio import Redis

from bridge.dead.kept import KeptLetters
from bridge.job import Delivery, Job, Outcome
from bridge.ledger.port import Claim
from bridge.settings import load
from bridge.store import open_store
from bridge.systems.cards import messages
from bridge.transports.redis import open_redis, redis_source
from bridge.transports.sending import resend_letter
from tests.support.bridge.trial_bridge import trial_settings
from tests.support.servers.pubsub_server import pubsub_server
from tests.support.servers.redis import RedisServer


def _poison(message_id: str = "m-1") -> Delivery:
    return Delivery(source="local", queue="jobs", message_id=message_id, receipt="r", body=b"?", attributes={"kind": "test"})


async def test_a_replay_that_is_cut_off_before_it_is_noted_and_done_again_is_one_message(tmp_path: Path) -> None:
    settings = load(**trial_settings(tmp_path))
    async with open_store(settings) as store:
        await store.dead_letters.bury(_poison(), reason="cannot be read")
        [letter] = await store.dead_letters.list()
        await resend_letter(settings, letter, database=store.database)  # and the process is gone

        await store.replay(letter.id)

        [lying] = await store.queue.peek()
        assert (b"?", {"kind": "test"}) == (lying.body, lying.attributes)
        assert "m-1" != lying.message_id, "the first message may still be on its way off the queue"


async def test_a_letter_that_was_replayed_can_be_replayed_once_more(tmp_path: Path) -> None:
    async with open_store(load(**trial_settings(tmp_path))) as store:
        await store.dead_letters.bury(_poison(), reason="cannot be read")
        [letter] = await store.dead_letters.list()
        for _ in range(2):
            await store.replay(letter.id)

        assert 2 == len(await store.queue.peek())


async def test_a_document_that_is_replayed_is_the_plain_item_and_the_job_that_it_was(tmp_path: Path, redis: RedisServer) -> None:
    """The platform's own worker reads the same list, and locks by what lies there."""
    queue, document = f"trial:{uuid4()}", str(uuid4())
    keys = {queue: {"locks": f"{queue}:lock:", "correlation": f"{queue}:correlation"}}
    settings = load(**trial_settings(tmp_path, lease_seconds=60.0), redis_url=redis.url, redis_queues=queue, redis_keys=keys)
    client = Redis.from_url(redis.url, decode_responses=True)
    async with open_store(settings) as store, open_redis(settings) as access, redis_source(settings, access) as source:
        await client.rpush(queue, document)
        [delivery] = await source.receive(limit=1, wait_seconds=60)
        job = messages.job_of(delivery)
        claim = await store.ledger.claim(job, worker="tester", lease_seconds=60)
        assert isinstance(claim, Claim)
        await store.ledger.finish(claim, Outcome(succeeded=False, result={}), buried=delivery, reason="not in the bucket")
        await source.acknowledge(delivery)
        [letter] = await store.dead_letters.list()
        await resend_letter(settings, letter, database=store.database)  # and the process is gone
        await store.replay(letter.id)

        assert [document] == await client.lrange(queue, 0, -1)
        [again] = await source.receive(limit=1, wait_seconds=60)
        assert job == messages.job_of(again)
        assert isinstance(await store.ledger.claim(job, worker="tester", lease_seconds=60), Claim), "with all its attempts"
        assert await client.exists(f"{queue}:lock:{document}")
    await client.aclose()


async def test_the_platform_row_of_a_job_is_queued_again_before_its_message_is(tmp_path: Path) -> None:
    """Of the systems whose own rows have the last word, and of the very job; from the ledger's letters as from a queue of dead messages."""
    told: list[str] = []

    async def requeue(key: str) -> bool:
        told.append(f"{key}, with {len(await store.queue.peek())} messages sent")
        return True

    settings = load(**trial_settings(tmp_path))
    async with open_store(settings) as opened:
        store = replace(opened, requeues={"with rows": requeue})
        for key, system in (("job", "with rows"), ("job-2", "with rows"), ("other", "without")):
            job = Job(key=key, system=system, request={})
            claim = await store.ledger.claim(job, worker="tester", lease_seconds=60)
            assert isinstance(claim, Claim)
            await store.ledger.finish(claim, Outcome(succeeded=False, result={}), buried=_poison(key), reason="it broke")
        letters = {letter.job_key: letter for letter in await store.dead_letters.list()}

        await store.replay(letters["job"].id)
        await store.replay(letters["other"].id)
        assert await store.reopen("job-2")

    assert ["job, with 0 messages sent", "job-2, with 2 messages sent"] == told


async def test_a_letter_of_pubsub_tells_the_topic_that_it_is_sent_to(tmp_path: Path) -> None:
    """Of several subscriptions only the first one's topic is known."""
    async with pubsub_server() as server:
        server.create("urgent", "urgent-sub")
        server.create("jobs", "jobs-sub")
        pubsub = {"pubsub_project": "trial", "pubsub_emulator": server.address, "pubsub_topic": "urgent"}
        settings = load(**trial_settings(tmp_path), **pubsub, pubsub_subscriptions=("urgent-sub", "jobs-sub"))
        async with open_store(settings) as store:
            await store.dead_letters.bury(replace(_poison(), source="pubsub", queue="jobs-sub"), reason="cannot be read")
            letters = KeptLetters(store)
            [letter] = [letter async for letter in letters.browse()]

            assert ("jobs-sub", "urgent", "urgent") == (letter.queue, letter.destination, await letters.replay(letter))
        assert [b"?"] == [message.data for message in server.topics["projects/trial/topics/urgent"]]
