"""What becomes of deliveries and their jobs."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from structlog.testing import capture_logs

from bridge.errors import (
    ConfigurationError,
    HeldUpError,
    LeaseLostError,
    NotYetError,
    OverloadError,
    PermanentError,
    PoisonError,
    ServerLostError,
    TransientError,
)
from bridge.job import Job, Outcome, Units, Write
from bridge.ledger.port import JobRecord, State
from bridge.steps import Step
from bridge.systems.port import Context
from bridge.worker import Backoff
from tests.support.patience import until
from tests.unit.bridge.worker.conftest import Office, Offices, done


async def succeed(job: Job, context: Context) -> Outcome:
    return done(job, fence=context.claim.fence)


async def forever(_job: Job, _context: Context) -> Outcome:
    await asyncio.sleep(3600)
    raise AssertionError


def failing(*errors: Exception):  # type: ignore[no-untyped-def]
    """Work that fails with these errors in turn, and then succeeds."""
    left = list(errors)

    async def work(job: Job, context: Context) -> Outcome:
        if left:
            raise left.pop(0)
        return done(job)

    return work


async def record_of(office: Office, key: str = "job") -> JobRecord:
    record = await office.store.jobs.find(key)
    assert record is not None
    return record


async def open_jobs(office: Office) -> list[JobRecord]:
    return [record for record in await office.store.jobs.list() if record.state not in {State.SUCCEEDED, State.FAILED}]


async def test_a_job_goes_through_all_its_steps_in_order(office_of: Offices) -> None:
    office = office_of(succeed)
    await office.ask()

    async with office.working():
        await office.until(Step.ACKNOWLEDGED)

    assert ["read", "claimed", "handled", "committed", "acknowledged"] == office.recorder.steps()
    assert (await record_of(office)).state is State.SUCCEEDED
    assert await office.store.queue.depth() == 0
    assert [("job", b"job")] == [(message.job_key, message.body) for message in await office.store.outbox.take(limit=9, lease_seconds=1)]


async def test_the_relay_is_woken_by_a_commit(office_of: Offices) -> None:
    office = office_of(succeed)
    woken = asyncio.Event()
    await office.ask()

    async with office.working(committed=woken.set):
        await asyncio.wait_for(woken.wait(), 60)


async def test_no_more_jobs_run_at_once_than_there_are_slots(office_of: Offices) -> None:
    running, most = 0, 0

    async def work(job: Job, _context: Context) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await until(lambda: most >= 3)
        # Time for one too many.
        await asyncio.sleep(0.05)
        running -= 1
        return done(job)

    office = office_of(work, concurrency=3)
    for number in range(9):
        await office.ask(f"job-{number}")
    async with office.working():
        for number in range(9):
            await office.until(Step.ACKNOWLEDGED, f"job-{number}")

    assert most == 3


async def test_messages_are_left_to_others_while_no_slot_is_free(office_of: Offices) -> None:
    office = office_of(forever, concurrency=1, drain_seconds=0)
    for number in range(2):
        await office.ask(f"job-{number}")

    async with office.working():
        await office.until(Step.CLAIMED, "job-0")
        await asyncio.sleep(0.3)
        assert len(await office.desk.source.receive(limit=5, wait_seconds=0)) == 1


@pytest.mark.parametrize("error", [TransientError("time-out"), ZeroDivisionError("a mistake")], ids=lambda error: type(error).__name__)
async def test_a_transient_or_unforeseen_error_is_tried_again_and_counts_an_attempt(office_of: Offices, error: Exception) -> None:
    office = office_of(failing(error, error))
    await office.ask()

    async with office.working():
        await office.until(Step.ACKNOWLEDGED)

    record = await record_of(office)
    assert (State.SUCCEEDED, 2, 3) == (record.state, record.attempts, record.fence)
    assert not await office.store.dead_letters.list()


async def test_after_the_last_attempt_a_job_fails_and_its_message_lies_in_the_dead_letters(office_of: Offices) -> None:
    office = office_of(failing(*[TransientError("time-out")] * 9), max_attempts=3)
    await office.ask()

    async with office.working():
        await office.until(Step.ACKNOWLEDGED)

    record = await record_of(office)
    assert (State.FAILED, "given up after 3 attempts: time-out") == (record.state, record.last_error)
    [letter] = await office.store.dead_letters.list()
    assert ("job", record.last_error) == (letter.job_key, letter.reason)
    [message] = await office.store.outbox.take(limit=9, lease_seconds=1)
    assert message.type == "failed"


@pytest.mark.parametrize("error", [PermanentError("no such slide"), PoisonError("no such field")], ids=lambda error: type(error).__name__)
async def test_a_permanent_error_ends_the_job_at_once_and_it_can_be_replayed(office_of: Offices, error: Exception) -> None:
    office = office_of(failing(error))
    await office.ask()

    async with office.working():
        await office.until(Step.ACKNOWLEDGED)
        record = await record_of(office)
        assert (State.FAILED, str(error), 0) == (record.state, record.last_error, record.attempts)

        [letter] = await office.store.dead_letters.list()
        await office.store.replay(letter.id)
        await office.until(Step.ACKNOWLEDGED, times=2)

    assert (await record_of(office)).state is State.SUCCEEDED


@pytest.mark.parametrize(
    "error", [OverloadError("full", retry_after=0.01), ConfigurationError("no key")], ids=lambda error: type(error).__name__
)
async def test_an_overload_counts_no_attempt(office_of: Offices, error: Exception) -> None:
    office = office_of(failing(error, error), max_attempts=1)
    await office.ask()

    async with office.working():
        await office.until(Step.ACKNOWLEDGED)

    record = await record_of(office)
    assert (State.SUCCEEDED, 0) == (record.state, record.attempts)


async def test_a_job_that_is_told_when_to_come_again_comes_no_sooner_and_others_do(office_of: Offices) -> None:
    tried: list[float] = []

    async def work(job: Job, _context: Context) -> Outcome:
        if job.key == "told":
            tried.append(asyncio.get_running_loop().time())
            if len(tried) == 1:
                raise OverloadError("come again later", retry_after=1.5)
        return done(job)

    office = office_of(work, concurrency=1, overload_seconds=0.05)
    await office.ask("told")
    async with office.working():
        await office.until(Step.RETURNED, "told")
        await office.ask("other")
        await office.until(Step.ACKNOWLEDGED, "other")
        await office.until(Step.ACKNOWLEDGED, "told")

    ended = [taken.job_key for taken in office.recorder.taken if taken.step is Step.ACKNOWLEDGED]
    assert (True, ["other", "told"]) == (tried[1] - tried[0] >= 1.5, ended)


async def test_a_job_whose_model_does_not_serve_waits_and_holds_up_no_other(office_of: Offices) -> None:
    async def work(job: Job, _context: Context) -> Outcome:
        if job.key.startswith("held"):
            raise HeldUpError("model tumour could not be loaded", retry_after=0.01)
        return done(job)

    office = office_of(work, concurrency=1, overload_seconds=3600, max_attempts=1)
    for key in ("held-1", "held-2", "other-1"):
        await office.ask(key)
    async with office.working(), asyncio.timeout(60):
        await office.until(Step.ACKNOWLEDGED, "other-1")
        await office.until(Step.RETURNED, "held-1", times=2)
        await office.ask("other-2")
        await office.until(Step.ACKNOWLEDGED, "other-2")

    record = await record_of(office, "held-1")
    assert (State.WAITING, 0, "model tumour could not be loaded") == (record.state, record.attempts, record.last_error)


@pytest.mark.parametrize(("kind", "step"), [("waits", Step.RETURNED), ("cannot be read", Step.BURIED), ("is given up", Step.ACKNOWLEDGED)])
async def test_while_the_server_is_probed_what_does_not_come_to_it_holds_up_no_job(office_of: Offices, kind: str, step: Step) -> None:
    async def work(job: Job, context: Context) -> Outcome:
        if job.key == "before":
            raise NotYetError("others first", retry_after=60)
        return await succeed(job, context)

    office = office_of(work, concurrency=1, overload_seconds=60, max_interruptions=1)
    if kind == "is given up":
        for _ in range(2):
            await office.store.ledger.claim(Job(key="before", system="trial", request={}), worker="killed", lease_seconds=0.01)
            await asyncio.sleep(0.05)
    await office.ask("before", **({"unreadable": True} if kind == "cannot be read" else {}))
    await office.ask("job")

    async with office.working() as worker:
        worker._throttle.overloaded(0.0, Backoff(base=0.001))
        async with asyncio.timeout(20):
            await office.until(Step.ACKNOWLEDGED)

    came = [taken.job_key for taken in office.recorder.taken].index("job")
    assert step in {taken.step for taken in office.recorder.taken[:came]}, "it was there before"


@pytest.mark.parametrize("most", [{"max_interruptions": 2}, {"max_server_losses": 3}], ids=lambda most: next(iter(most)))
async def test_a_job_over_which_the_server_is_lost_again_and_again_is_given_up_with_its_reason(
    office_of: Offices, most: dict[str, int]
) -> None:
    lost = ServerLostError("lost", retry_after=0.01)
    overload = OverloadError("not there", retry_after=0.01)
    office = office_of(failing(lost, overload, lost, overload, lost, lost), **most)
    await office.ask()

    async with office.working():
        await office.until(Step.ACKNOWLEDGED)

    record = await record_of(office)
    assert (State.FAILED, 0, 5) == (record.state, record.attempts, record.fence), "the third loss ends it"
    assert record.last_error.startswith("3 times in a row the inference server"), record.last_error
    [letter] = await office.store.dead_letters.list()
    assert ("job", record.last_error) == (letter.job_key, letter.reason)


async def test_a_job_whose_bridges_vanish_is_not_held_to_the_bound_of_lost_servers(office_of: Offices) -> None:
    office = office_of(succeed, max_server_losses=2, max_interruptions=3)
    await office.ask()
    job = Job(key="job", system="trial", request={})
    for _ in range(3):
        await office.store.ledger.claim(job, worker="killed", lease_seconds=0.01)
        await asyncio.sleep(0.05)

    async with office.working():
        await office.until(Step.ACKNOWLEDGED)

    assert (State.SUCCEEDED, 4) == ((await record_of(office)).state, (await record_of(office)).fence)


async def test_jobs_that_were_beside_one_that_kills_the_server_are_done(office_of: Offices) -> None:
    innocent = {"first", "second", "third"}
    lost, beside, deaths = asyncio.Event(), set[str](), 0

    async def kill() -> None:
        nonlocal lost, deaths
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.4):
                await until(lambda: beside == innocent)
        deaths += 1
        lost.set()
        lost = asyncio.Event()

    async def work(job: Job, context: Context) -> Outcome:
        context.report(0.1, "begun")  # the bridge takes jobs as if nothing had happened
        server = lost
        if job.key == "deadly":
            await kill()
        beside.add(job.key)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await server.wait()
        beside.remove(job.key)
        if server.is_set():
            raise ServerLostError("lost", retry_after=0.01)
        return done(job)

    office = office_of(work, concurrency=1, max_server_losses=5)
    for key in ("deadly", *sorted(innocent)):
        await office.ask(key)
    async with contextlib.AsyncExitStack() as bridges, asyncio.timeout(60):
        for number in range(4):
            await bridges.enter_async_context(office.working(name=f"bridge-{number}"))
        while await open_jobs(office):
            await office.let_all_be_due()
            await asyncio.sleep(0.05)

    assert {State.SUCCEEDED} == {(await record_of(office, key)).state for key in innocent}
    assert (State.FAILED, 5, 5) == ((deadly := await record_of(office, "deadly")).state, deadly.fence, deaths)


async def test_a_job_that_gets_on_between_losses_of_the_server_is_done_in_the_end(office_of: Offices) -> None:
    tries = 0

    async def work(job: Job, context: Context) -> Outcome:
        nonlocal tries
        tries += 1
        await context.checkpoint({"part": tries // 2})
        if tries < 9:
            raise ServerLostError("lost", retry_after=0.01)
        return await succeed(job, context)

    office = office_of(work, max_interruptions=2, max_server_losses=3)
    await office.ask()

    async with office.working():
        await office.until(Step.ACKNOWLEDGED)

    record = await record_of(office)
    assert (State.SUCCEEDED, 0, 9) == (record.state, record.attempts, record.fence)


async def test_a_job_for_which_others_come_first_leaves_its_place_to_them(office_of: Offices) -> None:
    ended: list[str] = []

    async def work(job: Job, _context: Context) -> Outcome:
        if job.key == "last" and len(ended) < 2:
            raise NotYetError("others come first", retry_after=0.05)
        ended.append(job.key)
        return done(job)

    office = office_of(work, concurrency=1, max_attempts=1)
    for key in ("last", "first", "second"):
        await office.ask(key)
    async with office.working():
        await office.until(Step.ACKNOWLEDGED, "last")

    assert ["first", "second", "last"] == ended
    assert (State.SUCCEEDED, 0) == ((record := await record_of(office, "last")).state, record.attempts)


async def test_while_the_server_is_full_one_job_at_a_time_is_tried(office_of: Offices) -> None:
    full, running, most, tries = True, 0, 0, 0

    async def work(job: Job, _context: Context) -> Outcome:
        nonlocal running, most, tries
        tries += 1
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        if full:
            raise OverloadError("full", retry_after=0.05)
        return done(job)

    office = office_of(work, concurrency=4)
    for number in range(8):
        await office.ask(f"job-{number}")
    async with office.working():
        await office.until(Step.RETURNED, "job-0")
        await until(lambda: running == 0)
        most = tries = 0
        await until(lambda: tries >= 6)
        assert most == 1
        full = False
        for number in range(8):
            await office.until(Step.ACKNOWLEDGED, f"job-{number}")

    assert most > 1, "once a job got through, all slots are used again"


async def test_a_long_job_that_gets_on_does_not_keep_others_waiting_after_an_overload(office_of: Offices) -> None:
    async def work(job: Job, context: Context) -> Outcome:
        if job.key == "long":
            await asyncio.sleep(0.4)
            context.report(0.1, "under way")
            await asyncio.sleep(3600)
        if context.claim.fence == 1:
            raise OverloadError("full", retry_after=0.01)
        return done(job)

    office = office_of(work, concurrency=2, drain_seconds=0, lease_seconds=30)
    await office.ask("long")
    await office.ask("short")
    async with office.working():
        await office.until(Step.ACKNOWLEDGED, "short")


@pytest.mark.parametrize("request_", [{"unreadable": 1}, {"mistake": 1}], ids=str)
async def test_a_message_that_cannot_be_read_is_buried_whole(office_of: Offices, request_: dict[str, int]) -> None:
    office = office_of(succeed)
    await office.ask(**request_)

    async with office.working():
        await office.until(Step.BURIED, "")
        await office.until(Step.ACKNOWLEDGED, "")

    [letter] = await office.store.dead_letters.list()
    assert b'"key":"job"' in letter.body
    assert letter.reason in {"expected something else", "KeyError: 'a mistake in the parser'"}
    assert await office.store.queue.depth() == 0


async def test_a_second_delivery_of_a_running_job_is_given_back_and_acknowledged_later(office_of: Offices) -> None:
    go_on = asyncio.Event()

    async def work(job: Job, _context: Context) -> Outcome:
        await go_on.wait()
        return done(job)

    # As long as the lease lasts the other delivery waits.
    office = office_of(work, lease_seconds=60)
    await office.ask()
    async with office.working():
        await office.until(Step.CLAIMED)
        await office.store.queue.send("again", b'{"system": "trial", "key": "job", "request": {}}')
        await office.until(Step.RETURNED)
        go_on.set()
        await office.until(Step.ACKNOWLEDGED)
        await office.let_all_be_due()
        await office.until(Step.ACKNOWLEDGED, times=2)

    assert office.recorder.steps().count("claimed") == 1
    assert len(await office.store.outbox.take(limit=9, lease_seconds=1)) == 1


async def test_work_that_outlasts_its_lease_keeps_it(office_of: Offices) -> None:
    async def work(job: Job, context: Context) -> Outcome:
        await asyncio.sleep(12)
        return done(job, fence=context.claim.fence)

    # Renewed at a third of it, it outlasts a pause of the machine too.
    office = office_of(work, lease_seconds=10)
    await office.ask()
    async with office.working():
        await office.until(Step.ACKNOWLEDGED)

    assert ["read", "claimed", "handled", "committed", "acknowledged"] == office.recorder.steps()
    assert sum(taken.step is Step.RENEWED for taken in office.recorder.taken) >= 2


async def test_a_heartbeat_survives_errors_of_ledger_and_queue(office_of: Offices) -> None:
    async def work(job: Job, _context: Context) -> Outcome:
        await until(lambda: min(ledger.stumbles, source.stumbles) >= 2)
        before = len(office.recorder.taken)
        await until(lambda: any(taken.step is Step.RENEWED for taken in office.recorder.taken[before:]))
        return done(job)

    office = office_of(work)
    ledger, source = Stumbling(office.desk.ledger, "renew"), Stumbling(office.desk.source, "renew")
    await office.ask()
    async with office.working(ledger=ledger, source=source):
        await office.until(Step.ACKNOWLEDGED)

    assert min(ledger.stumbles, source.stumbles) >= 2
    assert (await record_of(office)).fence == 1


async def test_a_lost_lease_cancels_the_work_and_writes_nothing(office_of: Offices) -> None:
    cancelled = asyncio.Event()

    async def work(_job: Job, _context: Context) -> Outcome:
        try:
            return await forever(_job, _context)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    office = office_of(work)
    await office.ask()
    async with office.working(ledger=Losing(office.desk.ledger)):
        await asyncio.wait_for(cancelled.wait(), 60)

    record = await record_of(office)
    assert (State.RUNNING, 0, "") == (record.state, record.attempts, record.last_error)
    assert not await office.store.outbox.take(limit=9, lease_seconds=1)


async def test_a_result_is_written_as_soon_as_the_database_is_back(office_of: Offices) -> None:
    office = office_of(succeed)
    ledger = Stumbling(office.desk.ledger, "finish", times=3)
    await office.ask()
    async with office.working(ledger=ledger):
        await office.until(Step.ACKNOWLEDGED)

    assert ledger.stumbles == 3
    assert office.recorder.steps().count("handled") == 1, "the work was not done again"


async def test_a_job_ends_even_when_the_platforms_tables_refuse_to_hear_of_its_failure(office_of: Offices) -> None:
    office = office_of(failing(PermanentError("no such slide")))
    office.desk.handler.failure_writes = (Write(statement="INSERT INTO jobs (key) VALUES (NULL)"),)  # type: ignore[attr-defined]
    await office.ask()

    with capture_logs() as logs:
        async with office.working():
            await office.until(Step.ACKNOWLEDGED)

    record = await record_of(office)
    assert (record.state, record.last_error) == (State.FAILED, "no such slide")
    [told] = [line for line in logs if line["event"] == "failure_writes_refused"]
    assert "the tables refuse" in told["error"]
    assert not told["exc_info"], "a database's own error may show the row"


@pytest.mark.parametrize(("error", "is_told"), [(KeyError("columns"), True), (PermanentError("no such slide"), False)])
async def test_where_it_happened_is_logged_of_what_nobody_foresaw(office_of: Offices, error: Exception, is_told: bool) -> None:
    office = office_of(failing(error), max_attempts=1)
    await office.ask()

    with capture_logs() as logs:
        async with office.working():
            await office.until(Step.ACKNOWLEDGED)

    [told] = [line for line in logs if line["event"] == "work_failed"]
    assert (error if is_told else None) is told["exc_info"]


async def test_a_result_that_cannot_be_written_fails_the_job_in_the_end(office_of: Offices) -> None:
    async def work(_job: Job, _context: Context) -> Outcome:
        return Outcome(succeeded=True, result={"value": object()})

    office = office_of(work, max_attempts=2)
    await office.ask()
    async with office.working():
        await office.until(Step.ACKNOWLEDGED)

    record = await record_of(office)
    assert record.state is State.FAILED
    assert "not JSON serializable" in record.last_error


async def test_work_that_cancels_itself_is_tried_again(office_of: Offices) -> None:
    tries = 0

    async def work(job: Job, _context: Context) -> Outcome:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise asyncio.CancelledError
        return done(job)

    office = office_of(work)
    await office.ask()
    async with office.working():
        await office.until(Step.ACKNOWLEDGED)

    assert (await record_of(office)).attempts == 1


async def test_progress_is_told_while_the_work_runs(office_of: Offices) -> None:
    async def work(_job: Job, context: Context) -> Outcome:
        context.report(0.5, "tiles", Units(done=16, total=32, per_second=8.0, seconds_left=2.0))
        return await forever(_job, context)

    office = office_of(work, lease_seconds=60, drain_seconds=0)
    await office.ask()
    async with office.working():
        await office.until(Step.RENEWED)

        record = await record_of(office)
        assert (0.5, "tiles") == (record.progress, record.stage)
        assert (16, 32, 8.0, 2.0) == (record.units_done, record.units_total, record.units_per_second, record.seconds_left)


async def test_progress_is_written_at_most_once_a_second(office_of: Offices) -> None:
    async def work(_job: Job, context: Context) -> Outcome:
        for tile in range(30):
            context.report(tile / 30, "tiles", Units(done=tile, total=30))
            await asyncio.sleep(0.05)
        return done(_job)

    office = office_of(work, lease_seconds=60)
    await office.ask()
    async with office.working():
        await office.until(Step.ACKNOWLEDGED)

    record = await record_of(office)
    assert record.started_at is not None
    assert record.finished_at is not None
    # The claim and the end can be seen too.
    assert 1 <= record.revision - 2 <= record.finished_at - record.started_at + 1


async def test_what_the_last_poll_brought_is_given_back_when_the_worker_stops(office_of: Offices) -> None:
    office = office_of(succeed, poll_seconds=1.0)
    async with office.working():
        await asyncio.sleep(0.2)
        office.stop.set()
        await office.ask()

    assert office.recorder.steps() == []
    assert len(await office.desk.source.receive(limit=1, wait_seconds=0)) == 1


async def test_work_that_ignores_its_cancellation_does_not_keep_the_worker(office_of: Offices) -> None:
    worker_ended = asyncio.Event()

    async def work(job: Job, _context: Context) -> Outcome:
        while not worker_ended.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await worker_ended.wait()
        return done(job)

    office = office_of(work, drain_seconds=0, cancel_seconds=0.2)
    await office.ask()
    async with office.working():
        await office.until(Step.CLAIMED)
    worker_ended.set()


async def test_receiving_goes_on_after_the_queue_failed(office_of: Offices) -> None:
    office = office_of(succeed)
    await office.ask()
    async with office.working(source=Stumbling(office.desk.source, "receive", times=3)):
        await office.until(Step.ACKNOWLEDGED)


async def test_a_job_whose_message_could_not_be_acknowledged_is_not_done_again(office_of: Offices) -> None:
    office = office_of(succeed, lease_seconds=60)
    source = Stumbling(office.desk.source, "acknowledge", times=1)
    await office.ask()
    async with office.working(source=source):
        await until(lambda: source.stumbles)
        # The queue's lease runs out, and it comes again.
        await office.let_all_be_due()
        await office.until(Step.ACKNOWLEDGED)

    assert ["claimed", "refused"] == [step for step in office.recorder.steps() if step in {"claimed", "refused"}]


async def test_a_failure_that_a_system_cannot_put_into_words_ends_its_job_all_the_same(office_of: Offices) -> None:
    office = office_of(failing(PermanentError("no such slide")))
    handler = Stumbling(office.desk.handler, "failure")
    handler.system = "trial"  # type: ignore[attr-defined]
    await office.ask()
    async with office.working(handler=handler):
        await office.until(Step.ACKNOWLEDGED)

    assert (State.FAILED, "no such slide") == ((await record_of(office)).state, (await record_of(office)).last_error)


class Stumbling:
    """Passes everything on, but one method fails, so many times: every other time when the number is not told."""

    def __init__(self, inner: object, method: str, times: int | None = None) -> None:
        self._inner = inner
        self._method = method
        self._times = times
        self._calls = 0
        self.stumbles = 0

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        found = getattr(self._inner, name)
        if name != self._method:
            return found
        self._calls += 1
        stumble = self._calls % 2 == 1 if self._times is None else self.stumbles < self._times
        if not stumble:
            return found
        self.stumbles += 1
        return self._fail if asyncio.iscoroutinefunction(found) else self._fail_at_once

    async def _fail(self, *_: object, **__: object) -> None:
        raise TransientError("stumbled")

    def _fail_at_once(self, *_: object, **__: object) -> None:
        raise ValueError("stumbled")


class Losing(Stumbling):
    """A ledger whose leases are always lost."""

    def __init__(self, inner: object) -> None:
        super().__init__(inner, "renew", times=1_000_000)

    async def _fail(self, *_: object, **__: object) -> None:
        raise LeaseLostError("lost")
