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
from tests.support.patience import until
from tests.unit.bridge.worker.conftest import Offices, done


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
    vitals = Vitals(patience_seconds=1, clock=lambda: time.monotonic() + ahead)
    async with office.working(vitals=vitals, source=source):
        await office.ask()

        def told() -> bool:
            nonlocal ahead
            ahead += 60
            return "heartbeat job" in vitals.stuck()

        try:
            await until(told)
        finally:
            source.freed.set()
        await office.until(Step.ACKNOWLEDGED)
    ahead = 3600.0
    assert {} == vitals.stuck(), "who has ended owes nothing"


async def test_a_heartbeat_that_beats_is_not_stuck_however_long_the_job_takes(office_of: Offices) -> None:
    stuck: list[str] = []
    ahead = 0.0
    vitals = Vitals(patience_seconds=1, clock=lambda: time.monotonic() + ahead)

    async def work(job: Job, context: Context) -> Outcome:
        nonlocal ahead
        for beats in range(1, 13):
            await office.until(Step.RENEWED, times=2 * beats)
            ahead += office.desk.policy.lease_seconds / 2
            stuck.extend(who for who in vitals.stuck() if who.startswith("heartbeat"))
        return done(job)

    office = office_of(work)
    async with office.working(vitals=vitals):
        await office.ask()
        await office.until(Step.ACKNOWLEDGED)

    assert [] == stuck


async def test_leases_are_told_while_a_job_runs_and_gone_when_it_has_ended(office_of: Offices) -> None:
    margins: list[tuple[float, float]] = []
    ahead = 0.0
    vitals = Vitals(clock=lambda: time.monotonic() + ahead)

    async def work(job: Job, context: Context) -> Outcome:
        nonlocal ahead
        ahead = 50.0
        await until(lambda: min(vitals.margin(Lease.LEDGER), vitals.margin(Lease.QUEUE)) > 12)
        margins.append((vitals.margin(Lease.LEDGER), vitals.margin(Lease.QUEUE)))
        return done(job)

    office = office_of(work)
    async with office.working(vitals=vitals):
        await office.ask()
        await office.until(Step.ACKNOWLEDGED)
        await until(lambda: math.isnan(vitals.margin(Lease.QUEUE)))

    [(ledger, queue)] = margins
    assert 0 < ledger <= 60, "it was renewed meanwhile"
    assert 0 < queue <= 60
    assert math.isnan(vitals.margin(Lease.LEDGER))
    assert {} == vitals.stuck()
