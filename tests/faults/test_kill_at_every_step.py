"""The bridge is killed at each of its steps, as by the kernel. Whatever the step: every job ends once, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge.job import Event
from bridge.ledger.port import DeadLetter, JobRecord
from bridge.steps import Step
from tests.support.trial_bridge import Trial, log_lines, message, open_trial_store, start, trial_settings

# At once: enough to keep the processors busy while leases run out.
_AT_ONCE = 8
_SECONDS = 60

# Each job with the state that it must end in, and the attempts that its own failures cost.
REQUESTS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "long": {"parts": 8, "part_seconds": 0.06},
    "flaky": {"transient_failures": 1},
    "broken": {"broken": True},
}
EXPECTED = {"plain": ("succeeded", 0), "long": ("succeeded", 0), "flaky": ("succeeded", 1), "broken": ("failed", 0)}


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """What is left once the bridge was killed at a step and another one has worked until idle."""

    killed: int
    ended: int
    jobs: Mapping[str, JobRecord]
    sent: list[tuple[str, str]]
    letters: list[DeadLetter]
    waiting: int
    unsent: int
    bodies: Mapping[str, Any]
    log: list[dict[str, Any]]


async def _ask(folder: Path, changes: Mapping[str, Any]) -> None:
    async with open_trial_store(folder, **changes) as store:
        for key, request in REQUESTS.items():
            await store.submit(message(key, **request))
        await store.queue.send("a duplicate of plain", message("plain"))
        await store.queue.send("poison", b"\xff not JSON")


async def _run(trial: Trial) -> int:
    process = start(trial)
    try:
        await asyncio.to_thread(process.join, _SECONDS)
        assert process.exitcode is not None, log_lines(trial.log)[-5:]
        return process.exitcode
    finally:
        process.kill()


async def _scenario(folder: Path, step: Step, changes: Mapping[str, Any]) -> Aftermath:
    await _ask(folder, changes)
    settings = trial_settings(folder, **changes)
    stumbles = {"flaky"}
    killed = await _run(Trial(settings=settings, log=folder / "first.log", until_idle=True, kill_at=step, stumbles=stumbles))
    ended = await _run(Trial(settings=settings, log=folder / "second.log", until_idle=True, stumbles=stumbles))
    async with open_trial_store(folder, **changes) as store:
        sent = await store.results.peek()
        return Aftermath(
            killed=killed,
            ended=ended,
            jobs={record.key: record for record in await store.jobs.list()},
            sent=[(each.attributes["job_key"], each.message_id) for each in sent],
            letters=list(await store.dead_letters.list()),
            waiting=await store.queue.depth(),
            unsent=(await store.outbox.backlog()).depth,
            bodies={each.attributes["job_key"]: json.loads(each.body) for each in sent},
            log=log_lines(folder / "first.log") + log_lines(folder / "second.log"),
        )


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def aftermaths(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[Step, Aftermath]:
    """The whole matrix on one kind of database, several scenarios at a time."""
    changes = []
    for _ in Step:
        changes.append({"database": request.getfixturevalue("new_postgres_database")()} if request.param == "postgres" else {})

    async def everything() -> dict[Step, Aftermath]:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(step: Step, change: Mapping[str, Any]) -> Aftermath:
            async with turns:
                return await _scenario(tmp_path_factory.mktemp(step.value), step, change)

        found = await asyncio.gather(*map(one, Step, changes))
        return dict(zip(Step, found, strict=True))

    return asyncio.run(everything())


@pytest.mark.parametrize("step", list(Step), ids=str)
def test_a_bridge_killed_at_any_step_loses_nothing_and_does_nothing_twice(aftermaths: Mapping[Step, Aftermath], step: Step) -> None:
    after = aftermaths[step]

    assert (-signal.SIGKILL, 0) == (after.killed, after.ended), "the first must reach the step and die, the second must end in peace"
    assert EXPECTED == {key: (record.state.value, record.attempts) for key, record in after.jobs.items()}
    expected = {key: "completed" if state == "succeeded" else "failed" for key, (state, _) in EXPECTED.items()}
    ids = [(key, Event(type=kind, destination="", body=b"").message_id(key)) for key, kind in expected.items()]
    assert sorted(ids) == sorted(after.sent), "one message for each job, under the id that follows from the job"
    assert (0, 0) == (after.waiting, after.unsent)
    assert {"", "broken"} == {letter.job_key for letter in after.letters}
    assert 2 == len(after.letters)
    assert [b"\xff not JSON"] == [letter.body for letter in after.letters if not letter.job_key]


def test_long_work_goes_on_from_its_checkpoint(aftermaths: Mapping[Step, Aftermath]) -> None:
    long = aftermaths[Step.CHECKPOINTED].bodies["long"]

    assert 2 <= long["fence"]
    assert 1 <= long["resumed_at"]
    assert 8 == long["resumed_at"] + long["computed"]
