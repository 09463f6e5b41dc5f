"""The line between real bridges and their database is cut, slow, or silent; jobs end once all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from bridge.job import Event
from bridge.ledger.port import State
from bridge.steps import Step
from tests.support import forked
from tests.support.bridge.trial_bridge import Trial, log_lines, message, open_trial_store, start, trial_settings
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.postgres import PostgresServer

_JOBS = 12
_SECONDS = 100


async def _cut_often(proxy: FaultProxy) -> None:
    for _ in range(12):
        await asyncio.sleep(0.15)
        proxy.cut()


async def _gone_for_longer_than_a_lease(proxy: FaultProxy) -> None:
    await asyncio.sleep(0.5)
    proxy.refuse()
    await asyncio.sleep(1.5)
    proxy.mend()


async def _slow(proxy: FaultProxy) -> None:
    proxy.delay(0.03)
    await asyncio.sleep(1.5)
    proxy.mend()


async def _silent(proxy: FaultProxy) -> None:
    await asyncio.sleep(0.5)
    proxy.swallow()
    await asyncio.sleep(1.5)
    proxy.cut()  # as a fail-over ends what it has left hanging
    proxy.mend()


_FAULTS: Mapping[str, Callable[[FaultProxy], Awaitable[None]]] = {
    "cut often": _cut_often,
    "gone for longer than a lease": _gone_for_longer_than_a_lease,
    "slow": _slow,
    "silent": _silent,
}


@pytest.mark.parametrize("fault", _FAULTS)
async def test_jobs_end_once_whatever_becomes_of_the_line_to_the_database(
    tmp_path: Path, postgres: PostgresServer, new_postgres_database: Callable[[], str], fault: str
) -> None:
    url = new_postgres_database()
    async with FaultProxy(postgres.port) as proxy, open_trial_store(tmp_path, database=url) as store:
        for number in range(_JOBS):
            await store.submit(message(f"job-{number}", parts=2, part_seconds=0.1))
            await store.queue.send(f"a duplicate of {number}", message(f"job-{number}"))
        through = trial_settings(tmp_path, database=postgres.url(url.rpartition("/")[2], port=proxy.port))
        bridges = [start(Trial(settings=through, log=tmp_path / f"{name}.log", until_idle=False)) for name in ("one", "other")]
        try:
            await _until_started(tmp_path / "one.log")
            await _FAULTS[fault](proxy)
            async with asyncio.timeout(_SECONDS):
                while await store.queue.depth() or (await store.outbox.backlog()).depth:
                    await asyncio.sleep(0.05)
            for bridge in bridges:
                bridge.terminate()
            for bridge in bridges:
                await asyncio.to_thread(bridge.join, _SECONDS)
        finally:
            for bridge in bridges:
                if bridge.is_alive():
                    bridge.kill()
        records = {record.key: record for record in await store.jobs.list(limit=1000)}
        sent = [(each.attributes["job_key"], each.message_id) for each in await store.results.peek(limit=1000)]

    keys = [f"job-{number}" for number in range(_JOBS)]
    assert [0, 0] == [bridge.exitcode for bridge in bridges]
    assert dict.fromkeys(keys, (State.SUCCEEDED, 0)) == {key: (record.state, record.attempts) for key, record in records.items()}
    assert sorted((key, Event(type="completed", destination="", body=b"").message_id(key)) for key in keys) == sorted(sent)


async def _until_started(log: Path) -> None:
    async with asyncio.timeout(_SECONDS):
        while not any(line.get("step") == Step.CLAIMED for line in log_lines(log)):
            await asyncio.sleep(0.02)


async def test_a_bridge_may_start_before_its_database(
    tmp_path: Path, postgres: PostgresServer, new_postgres_database: Callable[[], str]
) -> None:
    url = new_postgres_database()
    async with FaultProxy(postgres.port) as proxy:
        proxy.refuse()
        settings = trial_settings(tmp_path, database=postgres.url(url.rpartition("/")[2], port=proxy.port))
        bridge = start(Trial(settings=settings, log=tmp_path / "bridge.log", until_idle=True))
        try:
            async with asyncio.timeout(_SECONDS):
                while not any(line["event"] == "database_not_ready" for line in log_lines(tmp_path / "bridge.log")):
                    await asyncio.sleep(0.02)
            proxy.mend()
            await asyncio.to_thread(bridge.join, _SECONDS)
        finally:
            if bridge.is_alive():
                bridge.kill()

    assert 0 == bridge.exitcode


async def test_a_job_that_kills_its_workers_is_given_up_in_the_end(tmp_path: Path) -> None:
    settings = trial_settings(tmp_path, max_interruptions=2, lease_seconds=0.9)
    async with open_trial_store(tmp_path) as store:
        await store.submit(message("deadly", seconds=600))
        await store.submit(message("harmless"))
    for number in range(4):
        dying = start(Trial(settings=settings, log=tmp_path / f"{number}.log", signal_at=Step.RENEWED, until_idle=True))
        await asyncio.to_thread(dying.join, _SECONDS)
        if dying.exitcode == 0:
            break
        await asyncio.sleep(1.0)

    async with open_trial_store(tmp_path) as store:
        records = {record.key: record for record in await store.jobs.list()}
        letters = await store.dead_letters.list()
    assert (State.FAILED, State.SUCCEEDED) == (records["deadly"].state, records["harmless"].state)
    assert "3 workers in a row died or froze over this job" in records["deadly"].last_error
    assert ["deadly"] == [letter.job_key for letter in letters]


def test_a_server_that_is_not_there_is_told_in_a_line_without_the_password(tmp_path: Path) -> None:
    environment = {"BRIDGE_DATABASE": "Host=127.0.0.1;Port=1;Username=ann;Password=hunter2;Database=jobs"}

    done = forked.bridge("jobs", folder=tmp_path, environment=environment)

    assert 2 == done.status
    assert "bridge: postgresql://127.0.0.1:1/jobs is out of reach" in done.err
    assert "Traceback" not in done.err
    assert "hunter2" not in done.err + done.out
