"""What a worker on Pub/Sub does while jobs of it are to come again much later."""

from __future__ import annotations

import asyncio

from bridge.envelopes import native
from bridge.errors import OverloadError
from bridge.google.access import PubsubAccess
from bridge.job import Job, Outcome
from bridge.sources.pubsub_pull import PubsubSource
from bridge.systems.port import Context
from tests.support.patience import until
from tests.support.servers.pubsub_server import pubsub_server
from tests.unit.bridge.worker.conftest import Offices, done


async def test_jobs_that_come_again_much_later_take_no_slot_from_others_of_pubsub(office_of: Offices) -> None:
    begun: list[str] = []
    freed = asyncio.Event()

    async def work(job: Job, _context: Context) -> Outcome:
        begun.append(job.key)
        if job.key in "ab":
            raise OverloadError("come again", retry_after=300)
        if job.key in "de":
            await freed.wait()
        return done(job)

    office = office_of(work, concurrency=3, overload_seconds=0.1)
    async with pubsub_server() as server:
        server.create("jobs", "jobs-sub")
        access = PubsubAccess(project="trial", emulator=server.address)
        source = PubsubSource(access, ["jobs-sub"], lease_seconds=60)
        for key in "abc":
            server.publish("jobs", native.write(Job(key=key, system="trial", request={})))
        async with office.working(source=source):
            await until(lambda: server.left("jobs-sub") == 2 and set(begun) == set("abc"))
            for key in "de":
                server.publish("jobs", native.write(Job(key=key, system="trial", request={})))
            await until(lambda: set(begun) == set("abcde"))
            freed.set()
            await until(lambda: server.left("jobs-sub") == 2)
        await source.close()
        await access.close()
