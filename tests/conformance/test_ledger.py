"""What every ledger does: claim, fence, finish, outbox, dead letters."""

from __future__ import annotations

import asyncio
import traceback
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from bridge.database.local_queue import LocalQueue
from bridge.errors import LeaseLostError, PermanentError
from bridge.job import Delivery, Event, Job, Outcome, Progress, Units, Write
from bridge.ledger.port import SUSPECT_LOSSES, Claim, Counted, Ledger, Refusal, State
from bridge.store import Store

LEASE = 0.5
LONGER_THAN_A_LEASE = 0.65


def job(key: str = "job-1", **request: Any) -> Job:
    return Job(key=key, system="trial", request=request)


def delivery(message_id: str = "message-1", body: bytes = b"\x00original") -> Delivery:
    return Delivery(source="local", queue="jobs", message_id=message_id, receipt="r", body=body, attributes={"kind": "test"})


def success(*types: str) -> Outcome:
    events = tuple(Event(type=kind, destination="", body=b"{}") for kind in types)
    return Outcome(succeeded=True, result={"answer": 42}, events=events)


async def claimed(ledger: Ledger, wanted: Job | None = None, *, lease: float = 60.0) -> Claim:
    claim = await ledger.claim(wanted or job(), worker="tester", lease_seconds=lease)
    assert isinstance(claim, Claim), claim
    return claim


async def refused(ledger: Ledger, wanted: Job | None = None) -> Refusal:
    refusal = await ledger.claim(wanted or job(), worker="rival", lease_seconds=60)
    assert isinstance(refusal, Refusal), refusal
    return refusal


async def test_a_new_job_is_claimed_under_fence_one(store: Store) -> None:
    claim = await claimed(store.ledger)

    assert ("job-1", 1, 0, {}) == (claim.job_key, claim.fence, claim.attempts, claim.checkpoint)
    record = await store.jobs.find("job-1")
    assert record is not None
    assert record.state is State.RUNNING
    assert record.started_at is not None


async def test_a_claim_tells_how_long_ago_the_job_was_first_claimed(store: Store) -> None:
    await store.jobs.announce(job())
    await asyncio.sleep(LONGER_THAN_A_LEASE)
    first = await claimed(store.ledger, lease=LEASE)
    await asyncio.sleep(LONGER_THAN_A_LEASE)
    second = await claimed(store.ledger)

    assert (first.age < LEASE, LEASE < second.age < 60) == (True, True), "the time in the queue is none of it"


async def test_the_newest_job_that_has_not_ended_is_found(store: Store) -> None:
    await store.ledger.finish(await claimed(store.ledger, job("document-1/ended")), success())
    for key in ("document-1/old", "document-1/new", "document-12/new", "document-0/new"):
        await store.jobs.announce(job(key))
        await asyncio.sleep(0.01)

    found = await store.jobs.find_open("document-1/")
    assert found is not None
    assert "document-1/new" == found.key
    await store.ledger.finish(await claimed(store.ledger, job("document-0/new")), success())
    assert await store.jobs.find_open("document-0/") is None


async def test_an_announced_job_is_claimed(store: Store) -> None:
    await store.jobs.announce(job())
    await store.jobs.announce(job())

    assert (await claimed(store.ledger)).fence == 1


async def test_a_running_job_is_refused_for_the_rest_of_its_lease(stores: tuple[Store, Store]) -> None:
    await claimed(stores[0].ledger, lease=60)

    refusal = await refused(stores[1].ledger)

    assert refusal.state is State.RUNNING
    assert 50 < refusal.retry_after <= 60


async def test_of_many_rivals_one_gets_the_job(stores: tuple[Store, Store]) -> None:
    answers = await asyncio.gather(*(stores[number % 2].ledger.claim(job(), worker=str(number), lease_seconds=60) for number in range(20)))

    assert sum(isinstance(answer, Claim) for answer in answers) == 1


async def test_of_many_ends_at_once_only_those_under_an_old_fence_are_refused(stores: tuple[Store, Store]) -> None:
    first, second = stores
    claims = [await claimed(first.ledger, job(f"job-{number}"), lease=LEASE if number == 3 else 60) for number in range(6)]
    await asyncio.sleep(LONGER_THAN_A_LEASE)
    newer = await claimed(second.ledger, job("job-3"))

    ends = [first.ledger.finish(claim, success("completed", "told")) for claim in claims]
    answers = await asyncio.gather(*ends, return_exceptions=True)

    assert [isinstance(answer, LeaseLostError) for answer in answers] == [number == 3 for number in range(6)]
    messages = await first.outbox.take(limit=100, lease_seconds=60)
    assert {f"job-{number}" for number in range(6)} - {"job-3"} == {message.job_key for message in messages}
    assert ["completed", "told"] == [message.type for message in messages if message.job_key == "job-5"]
    await second.ledger.finish(newer, success())


async def test_an_end_that_cannot_be_written_spoils_no_other(store: Store) -> None:
    claims = [await claimed(store.ledger, job(f"job-{number}")) for number in range(3)]
    unwritable = Outcome(succeeded=True, result={"value": object()})

    ends = [store.ledger.finish(claim, unwritable if number == 1 else success()) for number, claim in enumerate(claims)]
    answers = await asyncio.gather(*ends, return_exceptions=True)

    assert [None, True, None] == [isinstance(answer, TypeError) or answer for answer in answers]


async def test_a_job_whose_lease_has_run_out_is_taken_over_at_no_attempt(stores: tuple[Store, Store]) -> None:
    first = await claimed(stores[0].ledger, lease=LEASE)
    await stores[0].ledger.checkpoint(first, {"done": 3})
    await asyncio.sleep(LONGER_THAN_A_LEASE)

    second = await claimed(stores[1].ledger)

    assert (2, 0, {"done": 3}) == (second.fence, second.attempts, second.checkpoint)


async def test_every_write_of_a_stale_holder_is_refused(stores: tuple[Store, Store]) -> None:
    stale = await claimed(stores[0].ledger, lease=LEASE)
    await asyncio.sleep(LONGER_THAN_A_LEASE)
    fresh = await claimed(stores[1].ledger)
    ledger = stores[0].ledger

    with pytest.raises(LeaseLostError):
        await ledger.renew(stale, lease_seconds=60)
    with pytest.raises(LeaseLostError):
        await ledger.checkpoint(stale, {"stale": True})
    with pytest.raises(LeaseLostError):
        await ledger.release(stale)
    with pytest.raises(LeaseLostError):
        await ledger.finish(stale, success("stale"), buried=delivery(), reason="stale")

    assert not await stores[0].outbox.take(limit=10, lease_seconds=1), "nothing of the refused write is left"
    assert not await stores[0].dead_letters.list()
    await stores[1].ledger.finish(fresh, success("completed"))


async def test_a_renewed_lease_is_kept_and_tells_progress(stores: tuple[Store, Store]) -> None:
    claim = await claimed(stores[0].ledger, lease=LEASE)
    units = Units(done=25, total=100, per_second=12.5, seconds_left=6.0)
    await stores[0].ledger.renew(claim, lease_seconds=60, progress=Progress(share=0.25, stage="tiles", units=units))
    await asyncio.sleep(LONGER_THAN_A_LEASE)

    assert (await refused(stores[1].ledger)).state is State.RUNNING
    record = await stores[1].jobs.find("job-1")
    assert record is not None
    assert (0.25, "tiles") == (record.progress, record.stage)
    assert (25, 100, 12.5, 6.0) == (record.units_done, record.units_total, record.units_per_second, record.seconds_left)


async def test_progress_never_goes_back_not_even_after_a_takeover(stores: tuple[Store, Store]) -> None:
    first = await claimed(stores[0].ledger, lease=LEASE)
    await stores[0].ledger.renew(first, lease_seconds=LEASE, progress=Progress(share=0.6, stage="tiles", units=Units(done=60, total=100)))
    await asyncio.sleep(LONGER_THAN_A_LEASE)
    second = await claimed(stores[1].ledger)
    seen = []
    for share, stage, done in ((0.0, "opening", 0), (0.58, "tiles", 58), (0.61, "tiles", 61)):
        progress = Progress(share=share, stage=stage, units=Units(done=done, total=100))
        await stores[1].ledger.renew(second, lease_seconds=60, progress=progress)
        record = await stores[0].jobs.find("job-1")
        assert record is not None
        seen.append((record.progress, record.stage, record.units_done))

    assert [(0.6, "tiles", 60), (0.6, "tiles", 60), (0.61, "tiles", 61)] == seen


async def test_a_stale_holder_writes_no_progress(stores: tuple[Store, Store]) -> None:
    stale = await claimed(stores[0].ledger, lease=LEASE)
    await asyncio.sleep(LONGER_THAN_A_LEASE)
    await claimed(stores[1].ledger)

    with pytest.raises(LeaseLostError):
        await stores[0].ledger.renew(stale, lease_seconds=60, progress=Progress(share=0.9, stage="tiles"))
    record = await stores[1].jobs.find("job-1")
    assert record is not None
    assert (0.0, "") == (record.progress, record.stage)


async def test_the_revision_rises_with_all_that_can_be_seen_and_with_nothing_else(store: Store) -> None:
    async def revision() -> int:
        record = await store.jobs.find("job-1")
        assert record is not None
        return record.revision

    await store.jobs.announce(job())
    seen = [await revision()]
    claim = await claimed(store.ledger)
    seen.append(await revision())
    await store.ledger.renew(claim, lease_seconds=60, progress=Progress(share=0.5, stage="tiles", units=Units(total=10)))
    seen.append(await revision())
    await store.ledger.renew(claim, lease_seconds=60)
    await store.ledger.checkpoint(claim, {"done": 5})
    assert seen[-1] == await revision()
    await store.ledger.release(claim, delay_seconds=0.0)
    seen.append(await revision())
    claim = await claimed(store.ledger)
    await store.ledger.finish(claim, success())
    seen.append(await revision())

    assert sorted(set(seen)) == seen
    record = await store.jobs.find("job-1")
    assert record is not None
    assert (10, 10, None) == (record.units_done, record.units_total, record.seconds_left)


async def test_a_finished_job_is_terminal_with_its_result_and_its_messages(store: Store) -> None:
    claim = await claimed(store.ledger)

    await store.ledger.finish(claim, success("completed", "audited"))

    refusal = await refused(store.ledger)
    assert (State.SUCCEEDED, 0) == (refusal.state, refusal.retry_after)
    record = await store.jobs.find("job-1")
    assert record is not None
    assert ({"answer": 42}, 1.0, "") == (record.result, record.progress, record.last_error)
    assert record.finished_at is not None
    messages = await store.outbox.take(limit=10, lease_seconds=60)
    expected = [Event(type=kind, destination="", body=b"").message_id("job-1") for kind in ("completed", "audited")]
    assert expected == [message.message_id for message in messages]


async def test_a_finished_job_cannot_be_finished_again(store: Store) -> None:
    claim = await claimed(store.ledger)
    await store.ledger.finish(claim, success("completed"))

    with pytest.raises(LeaseLostError):
        await store.ledger.finish(claim, success("completed"))
    assert len(await store.outbox.take(limit=10, lease_seconds=60)) == 1


async def platform_table(store: Store) -> None:
    await store.database.change(text("CREATE TABLE platform_rows (name text PRIMARY KEY, figure integer NOT NULL)"))


async def platform_rows(store: Store) -> list[tuple[str, int]]:
    rows = (await store.database.look(text("SELECT name, figure FROM platform_rows ORDER BY name"))).rows
    return [(row["name"], row["figure"]) for row in rows]


def row_of(name: str, figure: int | None) -> Write:
    return Write(statement="INSERT INTO platform_rows (name, figure) VALUES (:name, :figure)", values={"name": name, "figure": figure})


async def test_a_platforms_rows_are_written_with_the_end_of_the_job(store: Store) -> None:
    await platform_table(store)

    await store.ledger.finish(await claimed(store.ledger), replace(success(), writes=(row_of("a", 1), row_of("b", 2))))

    assert await platform_rows(store) == [("a", 1), ("b", 2)]


async def test_a_platforms_rows_are_written_with_the_checkpoint_that_tells_of_them(store: Store) -> None:
    await platform_table(store)
    claim = await claimed(store.ledger, lease=LEASE)

    await store.ledger.checkpoint(claim, {"step": 1}, [row_of("a", 1)])

    await asyncio.sleep(LONGER_THAN_A_LEASE)
    assert (await claimed(store.ledger)).checkpoint == {"step": 1}
    assert await platform_rows(store) == [("a", 1)]


async def test_a_stale_holder_writes_none_of_a_platforms_rows(stores: tuple[Store, Store]) -> None:
    await platform_table(stores[0])
    stale = await claimed(stores[0].ledger, lease=LEASE)
    await asyncio.sleep(LONGER_THAN_A_LEASE)
    await claimed(stores[1].ledger)

    with pytest.raises(LeaseLostError):
        await stores[0].ledger.checkpoint(stale, {}, [row_of("a", 1)])
    with pytest.raises(LeaseLostError):
        await stores[0].ledger.finish(stale, replace(success("done"), writes=(row_of("b", 2),)))

    assert await platform_rows(stores[0]) == []


async def test_a_row_that_the_platform_refuses_undoes_the_end_of_the_job(store: Store) -> None:
    await platform_table(store)
    claim = await claimed(store.ledger)

    with pytest.raises(PermanentError, match="refuse") as refusal:
        await store.ledger.finish(claim, replace(success("done"), writes=(row_of("a", 1), row_of("b", None))))
    assert "[parameters" not in "".join(traceback.format_exception(refusal.value)), "what was to be written stays out of logs"

    record = await store.jobs.find("job-1")
    assert record is not None
    assert record.state is State.RUNNING
    assert await platform_rows(store) == []
    assert (await store.outbox.backlog()).depth == 0


async def test_a_failed_job_keeps_its_reason_and_its_dead_letter(store: Store) -> None:
    claim = await claimed(store.ledger)
    failure = Outcome(
        succeeded=False, result={"error": "no", "reason": "broken"}, events=(Event(type="failed", destination="", body=b"{}"),)
    )

    await store.ledger.finish(claim, failure, buried=delivery(), reason="broken")

    assert (await refused(store.ledger)).state is State.FAILED
    record = await store.jobs.find("job-1")
    assert record is not None
    assert record.last_error == "broken"
    [letter] = await store.dead_letters.list()
    assert ("job-1", b"\x00original", "broken", {"kind": "test"}) == (letter.job_key, letter.body, letter.reason, letter.attributes)


async def test_a_failed_try_is_counted_and_waits_for_its_back_off(store: Store) -> None:
    claim = await claimed(store.ledger)

    await store.ledger.release(claim, delay_seconds=60, error="time-out", counted=Counted.ATTEMPT)

    refusal = await refused(store.ledger)
    assert refusal.state is State.WAITING
    assert 0 < refusal.retry_after <= 60


async def test_a_failed_try_is_made_again_after_its_back_off(store: Store) -> None:
    claim = await claimed(store.ledger)

    await store.ledger.release(claim, delay_seconds=0.4, error="time-out", counted=Counted.ATTEMPT)

    await asyncio.sleep(0.5)
    again = await claimed(store.ledger)
    assert (2, 1) == (again.fence, again.attempts)


async def test_an_interrupted_job_is_queued_again_at_no_attempt(store: Store) -> None:
    claim = await claimed(store.ledger)
    await store.ledger.checkpoint(claim, {"done": 1})

    await store.ledger.release(claim)

    record = await store.jobs.find("job-1")
    assert record is not None
    assert (State.QUEUED, 0) == (record.state, record.attempts)
    again = await claimed(store.ledger)
    assert (2, 0, {"done": 1}) == (again.fence, again.attempts, again.checkpoint)


async def test_holders_that_vanish_are_counted_until_one_gets_on(stores: tuple[Store, Store]) -> None:
    counted = []
    for _ in range(3):
        counted.append((await claimed(stores[0].ledger, lease=0.01)).interruptions)
        await asyncio.sleep(0.05)
    claim = await claimed(stores[1].ledger, lease=0.05)
    await stores[1].ledger.checkpoint(claim, {"done": 1})
    await asyncio.sleep(0.1)

    assert ([0, 1, 2], 3) == (counted, claim.interruptions)
    assert (await claimed(stores[0].ledger)).interruptions == 1


async def test_a_server_that_is_lost_over_a_job_counts_as_a_holder_that_vanished(store: Store) -> None:
    claim = await claimed(store.ledger)
    await store.ledger.release(claim, error="lost", counted=Counted.SERVER_LOST)
    claim = await claimed(store.ledger)
    await store.ledger.release(claim, error="no server", counted=Counted.NOT_TRIED)
    again = await claimed(store.ledger)

    assert (1, 1, 0) == (claim.interruptions, again.interruptions, again.attempts), "for want of a server nothing is forgotten"
    assert (1, 1) == (claim.server_losses, again.server_losses)
    await store.ledger.checkpoint(again, {})
    await store.ledger.release(again, error="lost", counted=Counted.SERVER_LOST)
    again = await claimed(store.ledger)
    assert 2 == again.interruptions, "saving the same again gets nowhere"
    await store.ledger.checkpoint(again, {"done": 1})
    await store.ledger.release(again, error="lost", counted=Counted.SERVER_LOST)
    again = await claimed(store.ledger)
    assert 1 == again.interruptions, "what got on begins to count anew"
    await store.ledger.release(again, counted=Counted.ATTEMPT)
    again = await claimed(store.ledger)
    assert (0, 0) == (again.interruptions, again.server_losses), "a holder that survived the job"


async def test_a_checkpoint_answers_what_is_counted_against_the_job_now(store: Store) -> None:
    await claimed(store.ledger, lease=0.01)
    await asyncio.sleep(0.05)
    await store.ledger.release(await claimed(store.ledger), error="lost", counted=Counted.SERVER_LOST)
    claim = await claimed(store.ledger)

    same = await store.ledger.checkpoint(claim, {})
    new = await store.ledger.checkpoint(same, {"done": 1})

    assert (2, 1) == (claim.interruptions, claim.server_losses), "a bridge that vanished has lost no server"
    assert (claim, (0, 0)) == (same, (new.interruptions, new.server_losses))
    assert (claim.fence, {}) == (new.fence, new.checkpoint), "it still tells what the last holder saved"


async def lose_server(store: Store, key: str, times: int) -> None:
    for _ in range(times):
        await store.ledger.release(await claimed(store.ledger, job(key)), error="lost", counted=Counted.SERVER_LOST)


async def test_of_jobs_over_which_servers_are_lost_again_and_again_one_is_tried_at_a_time(store: Store) -> None:
    for key in ("suspect", "beside"):
        await lose_server(store, key, SUSPECT_LOSSES)
    await lose_server(store, "once", SUSPECT_LOSSES - 1)
    tried = await claimed(store.ledger, job("suspect"), lease=60)

    refusal = await refused(store.ledger, job("beside"))

    assert refusal.state is State.WAITING
    assert 50 < refusal.retry_after <= 60, "as long as the other one's lease"
    for key in ("once", "new"):
        await claimed(store.ledger, job(key))
    await store.ledger.finish(tried, success())
    assert SUSPECT_LOSSES == (await claimed(store.ledger, job("beside"))).server_losses


async def test_of_suspects_that_are_claimed_at_once_one_is_tried(store: Store) -> None:
    for key in ("ended", "once", "third", "second", "first"):
        await lose_server(store, key, SUSPECT_LOSSES - (key == "once"))
    await store.ledger.finish(await claimed(store.ledger, job("ended")), success())
    await store.ledger.release(await claimed(store.ledger, job("first")), delay_seconds=60, counted=Counted.NOT_TRIED)

    wanted = ("third", "first", "new", "second", "once", "ended")
    answers = await asyncio.gather(*(store.ledger.claim(job(key), worker="tester", lease_seconds=60) for key in wanted))

    tried = {key for key, answer in zip(wanted, answers, strict=True) if isinstance(answer, Claim)}
    [suspect] = tried - {"once", "new"}
    [waiting] = {"second", "third"} - {suspect}
    told = {key: answer.retry_after for key, answer in zip(wanted, answers, strict=True) if isinstance(answer, Refusal)}
    assert {"first", waiting, "ended"} == told.keys()
    assert 50 < told[waiting] <= 60


async def test_a_suspect_that_gets_on_or_whose_worker_is_dead_keeps_no_other_waiting(store: Store) -> None:
    for key in ("gets-on", "dead", "beside"):
        await lose_server(store, key, SUSPECT_LOSSES)
    await store.ledger.checkpoint(await claimed(store.ledger, job("gets-on")), {"done": 1})
    await claimed(store.ledger, job("dead"), lease=0.3)
    await refused(store.ledger, job("beside"))

    await asyncio.sleep(0.4)

    await claimed(store.ledger, job("beside"))
    await refused(store.ledger, job("dead"))


async def test_losses_count_no_longer_once_an_earlier_bridge_has_seen_the_job_get_on(store: Store, location: str) -> None:
    await lose_server(store, "job-1", SUSPECT_LOSSES)
    table = "jobs" if location.endswith(".db") else "lamina.jobs"
    await store.database.change(text(f"UPDATE {table} SET interruptions = 0"))  # all that one knows of

    assert 0 == (await claimed(store.ledger)).server_losses


async def test_a_replayed_job_is_no_suspect(store: Store) -> None:
    for key in ("job-1", "other"):
        await lose_server(store, key, SUSPECT_LOSSES)
    failed = Outcome(succeeded=False, result={})
    await store.ledger.finish(await claimed(store.ledger), failed, buried=delivery(), reason="lost")
    assert await store.jobs.reopen("job-1")
    await claimed(store.ledger, job("other"))

    again = await claimed(store.ledger)

    assert (0, 0) == (again.interruptions, again.server_losses)


async def test_a_job_that_succeeded_begins_anew_only_where_that_is_meant(store: Store) -> None:
    await store.ledger.finish(await claimed(store.ledger), Outcome(succeeded=True, result={}))

    assert not await store.jobs.reopen("job-1")
    assert await store.jobs.reopen("job-1", ended=True)
    assert not await store.jobs.reopen("job-1", ended=True), "it waits already"
    assert 2 == (await claimed(store.ledger)).fence


async def test_a_job_that_is_given_back_was_not_interrupted(store: Store) -> None:
    for _ in range(2):
        claim = await claimed(store.ledger)
        await store.ledger.release(claim)

    assert (await claimed(store.ledger)).interruptions == 0


async def test_what_ended_long_ago_is_removed_and_nothing_else(store: Store) -> None:
    await store.ledger.finish(await claimed(store.ledger, job("ended")), success("completed"))
    await store.ledger.finish(await claimed(store.ledger, job("sent")), success("completed"), buried=delivery(), reason="no")
    await claimed(store.ledger, job("running"))
    for message in await store.outbox.take(limit=10, lease_seconds=60):
        if message.job_key == "sent":
            await store.outbox.mark_sent(message.message_id)
    await asyncio.sleep(0.02)

    assert 0 == await store.pruner.prune(keep_seconds=60)
    assert 4 == await store.pruner.prune(keep_seconds=0.01), "two jobs, a message, a letter"
    assert ["running"] == [record.key for record in await store.jobs.list()]
    assert 1 == (await store.outbox.backlog()).depth, "what is not sent is kept"
    assert not await store.dead_letters.list()


async def test_jobs_that_were_begun_and_left_to_another_program_are_forgotten_in_the_end(store: Store) -> None:
    await store.ledger.release(await claimed(store.ledger, job("given back")))
    await store.ledger.release(await claimed(store.ledger, job("to be tried again")), delay_seconds=3600)
    await claimed(store.ledger, job("lost"))
    await claimed(store.ledger, job("long at work"), lease=3600)
    await store.jobs.announce(job("never begun"))
    await store.ledger.finish(await claimed(store.ledger, job("replayed")), Outcome(succeeded=False, result={}))
    jobs = "lamina.jobs" if store.database.dialect == "postgres" else "jobs"
    earlier = ", ".join(f"{moment} = {moment} - 1800" for moment in ("created_at", "started_at", "due_at", "lease_until"))
    await store.database.change(text(f"UPDATE {jobs} SET {earlier}"))
    await store.reopen("replayed")

    assert 0 == await store.pruner.prune(keep_seconds=3600)
    assert 2 == await store.pruner.prune(keep_seconds=900)
    assert {"to be tried again", "long at work", "never begun", "replayed"} == {record.key for record in await store.jobs.list()}
    assert 1 == (await claimed(store.ledger, job("given back"))).fence, "it is a new job"


async def test_a_job_whose_message_lies_in_a_queue_of_the_database_is_late_and_not_forsaken(store: Store) -> None:
    queue = LocalQueue(store.database, "jobs")
    await queue.send("asked for", b"{}")
    for key in ("asked for", "left"):
        claim = await store.ledger.checkpoint(await claimed(store.ledger, job(key)), {"tiles": 5})
        await store.ledger.release(claim, error="no", counted=Counted.ATTEMPT)
    failed = Outcome(succeeded=False, result={})
    await store.ledger.finish(await claimed(store.ledger, job("replayed")), failed, buried=delivery("replayed"), reason="no")
    [letter] = await store.dead_letters.list()
    await store.replay(letter.id)
    jobs = "lamina.jobs" if store.database.dialect == "postgres" else "jobs"
    earlier = ", ".join(f"{moment} = {moment} - 1800" for moment in ("created_at", "started_at", "due_at"))
    await store.database.change(text(f"UPDATE {jobs} SET {earlier}"))

    assert 1 == await store.pruner.prune(keep_seconds=900)
    assert {"asked for", "replayed"} == {record.key for record in await store.jobs.list()}
    again = await claimed(store.ledger, job("asked for"))
    assert (2, 1, {"tiles": 5}) == (again.fence, again.attempts, again.checkpoint)


async def test_no_more_is_removed_at_once_than_asked_for(store: Store) -> None:
    for number in range(3):
        await store.ledger.finish(await claimed(store.ledger, job(f"job-{number}")), Outcome(succeeded=True, result={}))
    await asyncio.sleep(0.02)

    assert [2, 1, 0] == [await store.pruner.prune(keep_seconds=0.01, limit=2) for _ in range(3)]


async def test_texts_that_some_databases_refuse_are_kept_as_well_as_can_be(store: Store) -> None:
    claim = await claimed(store.ledger, job("job-1", text="a\x00b\ud800"))
    await store.ledger.renew(claim, lease_seconds=60, progress=Progress(stage="a\x00b\ud800"))
    await store.ledger.finish(claim, Outcome(succeeded=False, result={}), buried=delivery(), reason="a\x00b\ud800")

    record = await store.jobs.find("job-1")
    assert record is not None
    assert ("a\ufffdb?", "a\ufffdb?", "a\x00b\ud800") == (record.stage, record.last_error, record.request["text"])


async def test_a_taken_message_is_hidden_from_other_relays_until_its_lease_runs_out(stores: tuple[Store, Store]) -> None:
    await stores[0].ledger.finish(await claimed(stores[0].ledger), success("completed"))

    await stores[0].outbox.take(limit=10, lease_seconds=60)
    assert not await stores[1].outbox.take(limit=10, lease_seconds=60)

    await stores[0].ledger.finish(await claimed(stores[0].ledger, job("job-2")), success("completed"))
    [taken] = await stores[0].outbox.take(limit=10, lease_seconds=LEASE)
    await asyncio.sleep(LONGER_THAN_A_LEASE)
    [again] = await stores[1].outbox.take(limit=10, lease_seconds=LEASE)

    assert ("job-2", taken.message_id) == (again.job_key, again.message_id)


async def test_two_relays_never_take_the_same_message(stores: tuple[Store, Store]) -> None:
    for number in range(20):
        await stores[0].ledger.finish(await claimed(stores[0].ledger, job(f"job-{number}")), success("completed"))

    found = await asyncio.gather(*(stores[number % 2].outbox.take(limit=3, lease_seconds=60) for number in range(16)))

    keys = [message.job_key for messages in found for message in messages]
    assert 20 == len(keys) == len(set(keys))


async def test_a_sent_message_is_never_taken_again(store: Store) -> None:
    await store.ledger.finish(await claimed(store.ledger), success("completed"))
    [taken] = await store.outbox.take(limit=10, lease_seconds=0)
    assert (await store.outbox.backlog()).depth == 1

    await store.outbox.mark_sent(taken.message_id)

    assert not await store.outbox.take(limit=10, lease_seconds=1)
    assert (0, 0) == ((await store.outbox.backlog()).depth, (await store.outbox.backlog()).oldest_age)


async def test_a_postponed_message_lets_others_pass(store: Store) -> None:
    for number in range(2):
        await store.ledger.finish(await claimed(store.ledger, job(f"job-{number}")), success("completed"))
    [first] = await store.outbox.take(limit=1, lease_seconds=60)

    await store.outbox.postpone(first.message_id, delay_seconds=60, error="refused")

    [second] = await store.outbox.take(limit=10, lease_seconds=60)
    assert ["job-0", "job-1"] == [first.job_key, second.job_key]


async def test_a_postponed_message_comes_again(store: Store) -> None:
    await store.ledger.finish(await claimed(store.ledger), success("completed"))
    [first] = await store.outbox.take(limit=1, lease_seconds=60)

    await store.outbox.postpone(first.message_id, delay_seconds=0.4, error="refused")

    await asyncio.sleep(0.5)
    [again] = await store.outbox.take(limit=10, lease_seconds=60)
    assert (first.message_id, 1) == (again.message_id, again.attempts)


async def test_the_same_message_is_buried_once(store: Store) -> None:
    await store.dead_letters.bury(delivery(), reason="not JSON")
    await store.dead_letters.bury(delivery(), reason="not JSON, still")
    await store.dead_letters.bury(delivery("message-2"), reason="not JSON")

    letters = await store.dead_letters.list()
    assert ["message-2", "message-1"] == sorted((letter.message_id for letter in letters), reverse=True)
    assert {"not JSON", "not JSON, still"} == {letter.reason for letter in letters}


async def test_letters_wait_until_they_are_replayed(store: Store) -> None:
    await store.dead_letters.bury(delivery(), reason="not JSON")
    await store.dead_letters.bury(delivery("message-2"), reason="not JSON")
    waiting = [await store.dead_letters.waiting()]
    for letter in await store.dead_letters.list():
        await store.dead_letters.mark_replayed(letter.id)
        waiting.append(await store.dead_letters.waiting())

    assert [2, 1, 0] == waiting


async def test_a_reopened_job_starts_anew_with_all_its_attempts(store: Store) -> None:
    claim = await claimed(store.ledger)
    await store.ledger.release(claim, error="no", counted=Counted.ATTEMPT)
    claim = await claimed(store.ledger)
    await store.ledger.finish(claim, Outcome(succeeded=False, result={}), buried=delivery(), reason="broken")
    [letter] = await store.dead_letters.list()

    reopened = await store.dead_letters.reopen(letter.id)
    await store.dead_letters.mark_replayed(letter.id)

    assert b"\x00original" == reopened.body
    again = await claimed(store.ledger)
    assert (3, 0) == (again.fence, again.attempts)
    assert (await store.dead_letters.list())[0].replayed_at is not None


@pytest.mark.parametrize("by", ["its letter", "its key"])
async def test_a_reopened_job_that_fails_again_tells_so_again(store: Store, by: str) -> None:
    def failure(reason: str) -> Outcome:
        return Outcome(succeeded=False, result={}, events=(Event(type="failed", destination="there", body=reason.encode()),))

    async def reopen() -> None:
        if by == "its key":
            assert await store.jobs.reopen(job().key)
        else:
            await store.dead_letters.reopen((await store.dead_letters.list())[0].id)

    await store.ledger.finish(await claimed(store.ledger), failure("first"), buried=delivery(), reason="broken")
    await reopen()
    await store.ledger.finish(await claimed(store.ledger), failure("second"), buried=delivery(), reason="broken")
    [unsent] = await store.outbox.take(limit=10, lease_seconds=60)
    assert b"first" == unsent.body, "what was not sent yet stays, and is enough"
    await store.outbox.mark_sent(unsent.message_id)

    await reopen()
    await store.ledger.finish(await claimed(store.ledger), failure("third"), buried=delivery(), reason="broken")
    [again] = await store.outbox.take(limit=10, lease_seconds=60)
    assert (b"third", unsent.message_id) == (again.body, again.message_id)


async def test_a_job_that_succeeded_is_not_reopened_by_an_old_letter(store: Store) -> None:
    await store.ledger.finish(await claimed(store.ledger), Outcome(succeeded=False, result={}), buried=delivery(), reason="broken")
    [letter] = await store.dead_letters.list()
    await store.dead_letters.reopen(letter.id)
    await store.ledger.finish(await claimed(store.ledger), success("completed"))

    await store.dead_letters.reopen(letter.id)

    assert (await refused(store.ledger)).state is State.SUCCEEDED


async def test_a_dead_letter_that_is_not_there_cannot_be_reopened(store: Store) -> None:
    with pytest.raises(PermanentError, match="no dead letter 7"):
        await store.dead_letters.reopen(7)


async def test_a_job_is_found_by_the_start_of_its_key_when_no_other_starts_so(store: Store) -> None:
    for key in ("alpha", "alpha-2", "beta"):
        await store.jobs.announce(job(key, name=key))

    found = [await store.jobs.find(prefix) for prefix in ("alpha", "alpha-", "b", "a", "%", "zeta")]

    assert ["alpha", "alpha-2", "beta", None, None, None] == [record.key if record else None for record in found]


async def test_jobs_are_listed_the_newest_first_and_by_state(store: Store) -> None:
    for number in range(3):
        await store.jobs.announce(job(f"job-{number}"))
        await asyncio.sleep(0.005)
    await claimed(store.ledger, job("job-1"))

    assert ["job-2", "job-1", "job-0"] == [record.key for record in await store.jobs.list()]
    assert ["job-2", "job-0"] == [record.key for record in await store.jobs.list(state=State.QUEUED)]
    assert ["job-2"] == [record.key for record in await store.jobs.list(limit=1)]


async def test_the_first_trace_of_a_job_is_kept_for_whoever_takes_it_over(stores: tuple[Store, Store]) -> None:
    one, other = stores
    traces = [{"traceparent": f"00-{digit * 32}-{digit * 16}-01", "tracestate": "a=1"} for digit in "12"]
    first = await one.ledger.claim(Job(key="traced", system="trial", request={}, trace=traces[0]), worker="one", lease_seconds=60)
    assert isinstance(first, Claim)
    await one.ledger.release(first)
    second = await other.ledger.claim(Job(key="traced", system="trial", request={}, trace=traces[1]), worker="other", lease_seconds=60)
    assert isinstance(second, Claim)

    assert (traces[0], traces[0]) == (first.trace, second.trace)


async def test_a_job_without_a_trace_takes_on_the_first_that_comes(store: Store) -> None:
    trace = {"traceparent": f"00-{'3' * 32}-{'3' * 16}-01"}
    await store.jobs.announce(Job(key="announced", system="trial", request={}))
    claim = await store.ledger.claim(Job(key="announced", system="trial", request={}, trace=trace), worker="one", lease_seconds=60)

    assert isinstance(claim, Claim)
    assert trace == claim.trace
