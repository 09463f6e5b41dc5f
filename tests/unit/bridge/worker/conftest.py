"""A worker in this process, on a real SQLite ledger and queue, with a handler that the test writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from bridge.envelopes import native
from bridge.errors import PoisonError
from bridge.job import Delivery, Event, Job, Outcome, Write
from bridge.settings import load
from bridge.sources.local import LocalSource
from bridge.steps import Step, StepTaken
from bridge.store import Store, open_store
from bridge.systems.port import Context
from bridge.worker import Backoff, Desk, Worker, WorkPolicy

Work = Callable[[Job, Context], Awaitable[Outcome]]


@dataclass(frozen=True, kw_only=True)
class LivelyPolicy(WorkPolicy):
    """Beats as often as with a short lease, and has one that no stalled machine loses."""

    lease_seconds: float = 60.0

    @property
    def beat_seconds(self) -> float:
        return 0.1


def done(job: Job, **result: Any) -> Outcome:
    """A good end."""
    return Outcome(succeeded=True, result=result, events=(Event(type="completed", destination="", body=job.key.encode()),))


@dataclass
class Recorder:
    """Keeps every step."""

    taken: list[StepTaken] = field(default_factory=list)

    def on_step(self, taken: StepTaken) -> None:
        self.taken.append(taken)

    def steps(self, key: str = "job") -> list[str]:
        """The steps of one job in order, those of the heartbeat left out."""
        return [taken.step.value for taken in self.taken if taken.job_key == key and taken.step is not Step.RENEWED]


@dataclass
class FunctionHandler:
    """Does a function's work."""

    work: Work
    system: str = "trial"
    failure_writes: tuple[Write, ...] = ()

    def parse(self, delivery: Delivery) -> Job:
        envelope = native.read(delivery.body)
        if "mistake" in envelope.request:
            raise KeyError("a mistake in the parser")
        if "unreadable" in envelope.request:
            raise PoisonError("expected something else")
        return Job(key=envelope.key, system="trial", request=envelope.request)

    async def handle(self, job: Job, context: Context) -> Outcome:
        return await self.work(job, context)

    def failure(self, job: Job, reason: str) -> Outcome:
        event = Event(type="failed", destination="", body=reason.encode())
        return Outcome(succeeded=False, result={"reason": reason}, events=(event,), writes=self.failure_writes)


@dataclass
class Office:
    """One worker and all that it works with."""

    store: Store
    desk: Desk
    recorder: Recorder
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    commits: int = 0

    async def ask(self, key: str = "job", **request: Any) -> None:
        """Send a message that asks for a job."""
        await self.store.submit(native.write(Job(key=key, system="trial", request=request)))

    @asynccontextmanager
    async def working(self, **changes: Any) -> AsyncIterator[Worker]:
        """A worker that runs until the block ends, and then drains."""
        worker = Worker(replace(self.desk, **changes))
        running = asyncio.create_task(worker.run(self.stop, self.hurry))
        try:
            yield worker
        finally:
            self.stop.set()
            await asyncio.wait_for(running, 60)

    async def let_all_be_due(self) -> None:
        """Messages that wait, and those that somebody has, are delivered at once."""
        await self.store.database.change(text("UPDATE local_messages SET visible_at = 0"))

    async def until(self, step: Step, key: str = "job", times: int = 1) -> None:
        """Wait until a job has taken a step so many times."""
        async with asyncio.timeout(60):
            while sum(taken.step is step and taken.job_key == key for taken in self.recorder.taken) < times:
                await asyncio.sleep(0.01)


Offices = Callable[..., Office]


@pytest.fixture
async def office_of(tmp_path: Path) -> AsyncIterator[Offices]:
    """Makes an office whose handler does a function's work; further arguments are of its policy."""
    async with open_store(load(database=str(tmp_path / "bridge.db"))) as store:

        def make(work: Work, **policy: Any) -> Office:
            recorder = Recorder()
            quick = {
                "poll_seconds": 0.1,
                "backoff": Backoff(base=0.02, limit=0.05),
                "drain_seconds": 5.0,
                "cancel_seconds": 1.0,
            }
            kind = WorkPolicy if "lease_seconds" in policy else LivelyPolicy
            made = kind(**{**quick, **policy})
            desk = Desk(
                name="tester",
                source=LocalSource(store.queue, lease_seconds=made.lease_seconds),
                ledger=store.ledger,
                dead_letters=store.dead_letters,
                handler=FunctionHandler(work),
                observer=recorder,
                policy=made,
                committed=lambda: None,
            )
            return Office(store=store, desk=desk, recorder=recorder)

        yield make
