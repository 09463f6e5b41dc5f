"""Jobs whose messages Pub/Sub takes for dead, while the ledger has them tried again."""

from __future__ import annotations

from uuid import uuid4

from bridge.envelopes import native
from bridge.errors import ServerLostError
from bridge.google.access import PubsubAccess
from bridge.google.intake import Patience
from bridge.job import Job, Outcome
from bridge.ledger.port import State
from bridge.sources.pubsub_pull import PubsubSource
from bridge.steps import Step
from bridge.systems.port import Context
from tests.support.pubsub_emulator import PubsubEmulator
from tests.unit.bridge.worker.conftest import Offices, done

# Of a policy; Pub/Sub takes no fewer.
ATTEMPTS = 5


async def test_a_suspect_goes_on_where_dead_letters_are_subscribed_to_too(office_of: Offices, google_emulator: PubsubEmulator) -> None:
    """Its message is delivered more often than the policy allows; what comes from the dead-letter topic is the same job."""
    topic = f"jobs-{uuid4()}"
    subscriptions = google_emulator.create_dead_letters(topic, attempts=ATTEMPTS)
    tries: list[str] = []

    async def work(job: Job, _context: Context) -> Outcome:
        tries.append(job.key)
        if len(tries) <= ATTEMPTS + 1:
            raise ServerLostError("lost", retry_after=0.01)
        return done(job)

    office = office_of(work, max_server_losses=20)
    access = PubsubAccess(project="trial", emulator=google_emulator.address)
    source = PubsubSource(access, subscriptions, lease_seconds=60, patience=Patience(linger_seconds=5))
    google_emulator.publish(topic, native.write(Job(key="job", system="trial", request={})))
    async with office.working(source=source):
        await office.until(Step.ACKNOWLEDGED)
    await source.close()
    await access.close()

    record = await office.store.jobs.find("job")
    assert record is not None
    # Tried as often as without a policy, by one count, and ended once.
    assert (State.SUCCEEDED, ATTEMPTS + 2, 0) == (record.state, record.fence, record.attempts)
    assert ["job"] == [message.job_key for message in await office.store.outbox.take(limit=9, lease_seconds=1)]
    assert [] == await office.store.dead_letters.list()
