"""Real bridges are frozen, told to stop, or left without a server; jobs end once all the same."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from bridge.ledger.port import JobRecord, State
from tests.support.bridge.freezing import freeze_between_writes
from tests.support.bridge.trial_bridge import Trial, log_lines, message, open_trial_store, start, trial_settings

_SECONDS = 60


class Processes:
    """Bridges of one test; those that still run at its end are killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[BaseProcess] = []

    def start(self, name: str, *, until_idle: bool = False, **settings: Any) -> BaseProcess:
        trial = Trial(settings=trial_settings(self._folder, **settings), log=self._folder / f"{name}.log", until_idle=until_idle)
        self._started.append(start(trial))
        return self._started[-1]

    def log(self, name: str) -> list[dict[str, Any]]:
        return log_lines(self._folder / f"{name}.log")

    async def until(self, name: str, happened: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until a process has logged such a line."""
        deadline = time.monotonic() + _SECONDS
        while not any(map(happened, self.log(name))):
            assert time.monotonic() < deadline, self.log(name)[-5:]
            await asyncio.sleep(0.02)

    def close(self) -> None:
        for process in self._started:
            if process.is_alive():
                os.kill(process.pid or 0, signal.SIGCONT)
                process.kill()
            process.join()


@pytest.fixture(params=["sqlite", "postgres"])
def processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Processes]:
    if request.param == "postgres":
        (tmp_path / "database").write_text(request.getfixturevalue("new_postgres_database")())
    found = Processes(tmp_path)
    yield found
    found.close()


def _step(step: str, job: str) -> Callable[[dict[str, Any]], bool]:
    return lambda line: line.get("step") == step and line.get("job") == job


async def _exit_status(process: BaseProcess) -> int | None:
    await asyncio.to_thread(process.join, _SECONDS)
    return process.exitcode


async def _job(folder: Path, key: str) -> JobRecord:
    async with open_trial_store(folder) as store:
        record = await store.jobs.find(key)
    assert record is not None
    return record


async def test_a_frozen_bridge_loses_its_lease_and_its_late_write_is_refused(tmp_path: Path, processes: Processes) -> None:
    (tmp_path / "wait").touch()
    async with open_trial_store(tmp_path) as store:
        await store.submit(message("job", while_exists=str(tmp_path / "wait")))
        frozen = processes.start("frozen")
        await processes.until("frozen", _step("claimed", "job"))
        await freeze_between_writes(frozen.pid or 0, store.database)
    before = await _job(tmp_path, "job")
    (tmp_path / "wait").unlink()
    await asyncio.sleep(1.0)  # past the lease

    other = processes.start("other", until_idle=True, lease_seconds=60)
    assert await _exit_status(other) == 0
    os.kill(frozen.pid or 0, signal.SIGCONT)
    await processes.until("frozen", lambda line: line.get("event") == "job_taken_over")
    frozen.terminate()
    assert await _exit_status(frozen) == 0

    record = await _job(tmp_path, "job")
    assert (State.SUCCEEDED, before.fence + 1, 0) == (record.state, record.fence, record.attempts)
    assert record.result is not None
    assert record.result["fence"] == record.fence, "the result is the one of the holder of the newer fence"
    async with open_trial_store(tmp_path) as store:
        assert len(await store.results.peek()) == 1


async def test_sigterm_lets_running_jobs_end_and_takes_no_new_ones(tmp_path: Path, processes: Processes) -> None:
    async with open_trial_store(tmp_path) as store:
        await store.submit(message("running", while_exists=str(tmp_path / "wait")))
        await store.submit(message("queued"))
    (tmp_path / "wait").touch()
    bridge = processes.start("bridge", concurrency=1, drain_seconds=600)
    await processes.until("bridge", _step("claimed", "running"))
    bridge.terminate()
    await processes.until("bridge", lambda line: line.get("event") == "draining")
    (tmp_path / "wait").unlink()

    assert await _exit_status(bridge) == 0
    assert (await _job(tmp_path, "running")).state is State.SUCCEEDED
    assert (await _job(tmp_path, "queued")).state is State.QUEUED
    async with open_trial_store(tmp_path) as store:
        assert ["running"] == [each.attributes["job_key"] for each in await store.results.peek()], "the result was sent before the end"
        assert await store.queue.depth() == 1


@pytest.mark.parametrize("signals", [1, 2], ids=["past the drain's deadline", "at a second signal"])
async def test_a_job_that_cannot_end_in_time_is_left_to_others_at_once(tmp_path: Path, processes: Processes, signals: int) -> None:
    async with open_trial_store(tmp_path) as store:
        await store.submit(message("long", parts=2, part_seconds=0.05, seconds=3600))
    settings = {"lease_seconds": 3600, "drain_seconds": 0.3 if signals == 1 else 3600}
    bridge = processes.start("bridge", **settings)
    await processes.until("bridge", lambda line: _step("checkpointed", "long")(line))
    for _ in range(signals):
        bridge.terminate()
        await asyncio.sleep(0.3)

    assert await _exit_status(bridge) == 0
    record = await _job(tmp_path, "long")
    assert (State.QUEUED, 0, "") == (record.state, record.attempts, record.last_error), "an interruption costs no attempt"

    processes.start("other")
    await processes.until("other", _step("claimed", "long"))  # long before a lease of an hour has run out
    assert (await _job(tmp_path, "long")).fence == 2


async def test_while_the_server_is_down_jobs_are_held_and_no_attempt_is_counted(tmp_path: Path, processes: Processes) -> None:
    down = tmp_path / "down"
    down.touch()
    async with open_trial_store(tmp_path) as store:
        for number in range(4):
            await store.submit(message(f"job-{number}", down_while=str(down)))
    bridge = processes.start("bridge", until_idle=True, max_attempts=1)
    started, tries = time.monotonic(), 0
    while tries < 12:
        await asyncio.sleep(0.05)
        tries = sum(line.get("step") == "handled" for line in processes.log("bridge"))
        assert time.monotonic() < started + _SECONDS, processes.log("bridge")[-5:]
    seconds = time.monotonic() - started
    records = [await _job(tmp_path, f"job-{number}") for number in range(4)]
    assert {0} == {record.attempts for record in records}
    assert not {State.SUCCEEDED, State.FAILED} & {record.state for record in records}
    assert tries < 12 + 27 * seconds, "it keeps trying, but with pauses"

    down.unlink()
    assert await _exit_status(bridge) == 0
    async with open_trial_store(tmp_path) as store:
        assert {State.SUCCEEDED} == {record.state for record in await store.jobs.list()}
        assert not await store.dead_letters.list()


async def test_two_bridges_share_a_queue_and_do_each_job_once(tmp_path: Path, processes: Processes) -> None:
    async with open_trial_store(tmp_path) as store:
        for number in range(30):
            await store.submit(message(f"job-{number}", while_exists=str(tmp_path / "wait")))
    (tmp_path / "wait").touch()
    bridges = [processes.start(name, until_idle=True, concurrency=4, lease_seconds=60) for name in ("one", "other")]
    for name in ("one", "other"):
        await processes.until(name, lambda line: line.get("step") == "claimed")
    (tmp_path / "wait").unlink()

    assert [0, 0] == [await _exit_status(bridge) for bridge in bridges]
    async with open_trial_store(tmp_path) as store:
        assert {(State.SUCCEEDED, 1)} == {(record.state, record.fence) for record in await store.jobs.list()}
        assert len(await store.results.peek(limit=1000)) == 30


async def test_many_processes_may_start_on_a_new_database_at_once(
    request: pytest.FixtureRequest, tmp_path: Path, processes: Processes
) -> None:
    if (tmp_path / "database").exists():
        (tmp_path / "database").write_text(request.getfixturevalue("postgres").new_database())
    bridges = [processes.start(f"bridge-{number}", until_idle=True) for number in range(4)]

    assert [0, 0, 0, 0] == [await _exit_status(bridge) for bridge in bridges]
