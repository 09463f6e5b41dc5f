"""The database's clock is set back by an hour: what was due at once does not wait for it, and no age is below zero."""

from __future__ import annotations

from sqlalchemy import text

from bridge.job import Job
from bridge.ledger.port import Claim
from bridge.store import Store

_HOUR_AGO = {
    "sqlite": "CREATE VIEW clock AS SELECT (julianday('now') - 2440587.5) * 86400.0 - 3600.0 AS now",
    "postgres": "CREATE OR REPLACE VIEW lamina.clock AS SELECT CAST(extract(epoch FROM now()) - 3600 AS double precision) AS now",
}
_JOB = Job(key="job-1", system="trial", request={})


async def _set_back(store: Store) -> None:
    if store.database.dialect == "sqlite":
        await store.database.change(text("DROP VIEW clock"))
    await store.database.change(text(_HOUR_AGO[store.database.dialect]))


async def _claimed(store: Store) -> Claim:
    claim = await store.ledger.claim(_JOB, worker="tester", lease_seconds=60)
    assert isinstance(claim, Claim), claim
    return claim


async def test_what_was_sent_before_the_clock_went_back_is_had_at_once(store: Store) -> None:
    await store.queue.send("message-1", b"")

    await _set_back(store)

    level = await store.queue.level()
    assert (1, 0, 0) == (level["waiting"], level["delayed"], level["oldest_seconds"])
    assert ["message-1"] == [message.message_id for message in await store.queue.receive(limit=1, lease_seconds=60)]


async def test_what_was_given_back_before_the_clock_went_back_is_had_at_once(store: Store) -> None:
    await store.queue.send("message-1", b"")
    [message] = await store.queue.receive(limit=1, lease_seconds=60)
    await store.queue.release(message.receipt, delay_seconds=0)
    claim = await _claimed(store)
    await store.ledger.release(claim)

    await _set_back(store)

    assert 1 == len(await store.queue.receive(limit=1, lease_seconds=60))
    assert claim.fence + 1 == (await _claimed(store)).fence
