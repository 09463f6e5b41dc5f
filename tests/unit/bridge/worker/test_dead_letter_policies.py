"""Jobs whose messages Pub/Sub takes for dead after some deliveries, while the ledger has them tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from bridge.envelopes import native
from bridge.errors import OverloadError, ServerLostError
from bridge.google.access import PubsubAccess
from bridge.google.pulled import Patience
from bridge.job import Job, Outcome
from bridge.ledger.port import State
from bridge.sources.pubsub_pull import PubsubSource
from bridge.steps import Step
from bridge.systems.port import Context
from tests.support.patience import PATIENCE_SECONDS
from tests.support.servers.pubsub_emulator import PubsubEmulator
from tests.unit.bridge.worker.conftest import Office, Offices, done

# Of a policy; Pub/Sub takes no fewer.
ATTEMPTS = 5


@pytest.mark.parametrize("error", [ServerLostError("lost", retry_after=0.01), OverloadError("full", retry_after=0.01)])
async def test_a_job_that_waits_more_often_than_the_policy_allows_is_done(
    office_of: Offices, google_emulator: PubsubEmulator, error: Exception
) -> None:
    """A suspect's turn, and what a server asks to wait: its message stays here meanwhile."""
    topic, tries = f"jobs-{uuid4()}", [error] * (ATTEMPTS + 1)
    office = office_of(_failing(tries), max_server_losses=20, overload_seconds=0.05)
    subscription, _dead = google_emulator.create_dead_letters(topic, attempts=ATTEMPTS)
    google_emulator.publish(topic, native.write(Job(key="job", system="trial", request={})))

    await _work(office, google_emulator, subscription)

    await _assert_done_once(office, tries=ATTEMPTS + 2)


async def test_a_job_whose_message_was_moved_goes_on_where_dead_letters_are_subscribed_to_too(
    office_of: Offices, google_emulator: PubsubEmulator
) -> None:
    """What comes from the dead-letter topic is the same job."""
    topic = f"jobs-{uuid4()}"
    subscriptions = google_emulator.create_dead_letters(topic, attempts=ATTEMPTS)
    office = office_of(_failing([ServerLostError("lost", retry_after=0.01)] * 2), max_server_losses=20)
    google_emulator.publish(topic, native.write(Job(key="job", system="trial", request={})))
    async with _source(google_emulator, subscriptions[0]) as source:
        for _ in range(ATTEMPTS):
            [delivery] = await source.receive(limit=1, wait_seconds=PATIENCE_SECONDS)
            await source.release(delivery, delay_seconds=0)  # as a bridge that ends does

    await _work(office, google_emulator, *subscriptions)

    await _assert_done_once(office, tries=3)


def _failing(errors: list[Exception]) -> Callable[[Job, Context], Awaitable[Outcome]]:
    left = list(errors)

    async def work(job: Job, _context: Context) -> Outcome:
        if left:
            raise left.pop()
        return done(job)

    return work


async def _work(office: Office, emulator: PubsubEmulator, *subscriptions: str) -> None:
    async with _source(emulator, *subscriptions) as source, office.working(source=source):
        await office.until(Step.ACKNOWLEDGED)


@asynccontextmanager
async def _source(emulator: PubsubEmulator, *subscriptions: str) -> AsyncIterator[PubsubSource]:
    access = PubsubAccess(project="trial", emulator=emulator.address)
    source = PubsubSource(access, subscriptions, lease_seconds=60, patience=Patience(linger_seconds=5))
    try:
        yield source
    finally:
        await source.close()
        await access.close()


async def _assert_done_once(office: Office, *, tries: int) -> None:
    record = await office.store.jobs.find("job")
    assert record is not None
    # Tried as often as without a policy, by one count, and ended once.
    assert (State.SUCCEEDED, tries, 0) == (record.state, record.fence, record.attempts)
    assert ["job"] == [message.job_key for message in await office.store.outbox.take(limit=9, lease_seconds=1)]
    assert [] == await office.store.dead_letters.list()
