"""What a worker's loops tell of their life."""

from __future__ import annotations

import asyncio
import math
import time

from bridge.job import Delivery, Job, Outcome
from bridge.sources.local import LocalSource
from bridge.steps import Step
from bridge.systems.port import Context
from bridge.vitals import Lease, Vitals
from tests.unit.bridge.worker.conftest import LEASE_SECONDS, Offices, done


class DeafSource(LocalSource):
    """Its renewals neither end nor listen, until they are freed."""

    freed = asyncio.Event()

    async def renew(self, delivery: Delivery, *, lease_seconds: float) -> None:
        while not self.freed.is_set():
            try:
                await self.freed.wait()
            except asyncio.CancelledError:
                continue


async def test_a_heartbeat_that_hangs_is_told_until_it_is_freed(office_of: Offices) -> None:
    ahead = 0.0

    async def work(job: Job, context: Context) -> Outcome:
        await source.freed.wait()
        return done(job)

    office = office_of(work)
    source = DeafSource(office.store.queue, lease_seconds=60)
    source.freed = asyncio.Event()
    vitals = Vitals(patience_seconds=0.2, clock=lambda: time.monotonic() + ahead)
    async with office.working(vitals=vitals, source=source):
        await office.ask()
        async with asyncio.timeout(30):
            while "heartbeat job" not in vitals.stuck():
                await asyncio.sleep(0.02)
        source.freed.set()
        await office.until(Step.ACKNOWLEDGED)
    ahead = 3600.0
    assert {} == vitals.stuck(), "who has ended owes nothing"


async def test_a_heartbeat_that_beats_is_not_stuck_however_long_the_job_takes(office_of: Offices) -> None:
    stuck: list[str] = []
    vitals = Vitals(patience_seconds=1)

    async def work(job: Job, context: Context) -> Outcome:
        for _ in range(50):
            await asyncio.sleep(LEASE_SECONDS * 4 / 50)
            stuck.extend(vitals.stuck())
        return done(job)

    office = office_of(work)
    async with office.working(vitals=vitals):
        await office.ask()
        await office.until(Step.ACKNOWLEDGED)

    assert [] == stuck


async def test_leases_are_told_while_a_job_runs_and_gone_when_it_has_ended(office_of: Offices) -> None:
    margins: list[tuple[float, float]] = []
    vitals = Vitals()

    async def work(job: Job, context: Context) -> Outcome:
        await asyncio.sleep(LEASE_SECONDS)
        margins.append((vitals.margin(Lease.LEDGER), vitals.margin(Lease.QUEUE)))
        return done(job)

    office = office_of(work)
    async with office.working(vitals=vitals):
        await office.ask()
        await office.until(Step.ACKNOWLEDGED)
        async with asyncio.timeout(10):
            while not math.isnan(vitals.margin(Lease.QUEUE)):
                await asyncio.sleep(0.01)

    [(ledger, queue)] = margins
    assert 0 < ledger <= LEASE_SECONDS, "it was renewed meanwhile"
    assert 0 < queue <= LEASE_SECONDS
    assert math.isnan(vitals.margin(Lease.LEDGER))
    assert {} == vitals.stuck()
