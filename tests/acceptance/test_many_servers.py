"""A real bridge on several inference servers of one name: killed, frozen, slow, new and leaving ones, while jobs run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.ledger.port import JobRecord
from bridge.store import Store
from bridge.systems.labs import messages
from inference_server.models.builders import BUILDERS
from tests.support.bridge.bridge_process import BridgeSetup
from tests.support.bridge.lab_server import Served, served
from tests.support.inference_server.server_process import running_server
from tests.support.servers.hosts import NAME, Hosts, open_hosts

pytestmark = pytest.mark.timeout(300)

JOBS = 500
KILLED, FROZEN, SLOW, ADDED = 1, 2, 3, 4
SECONDS = {KILLED: 0.02, FROZEN: 0.02, SLOW: 0.5, ADDED: 0.02}
# A call may take two minutes. What a frozen server held is given up after 15 s of silence; the rest is this machine's slowness.
MOST_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What there was to see in the end."""

    jobs: Mapping[str, JobRecord]
    # Keys of the jobs that the results' queue holds, one for each message.
    results: list[str]
    notes: Mapping[int, Served]
    # What the killed and the frozen server had in their hands at that moment.
    lost: Mapping[int, set[str]]


def bridge_setup(hosts: Hosts, folder: Path, **variables: str) -> BridgeSetup:
    folder.mkdir(exist_ok=True)
    program = tuple(hosts.client_command("bridge"))
    quiet = {"BRIDGE_LAB_ALIAS_SECONDS": "0", "BRIDGE_LOG_LEVEL": "debug", **variables}
    return BridgeSetup(folder=folder, inference=f"{NAME}:{hosts.port}", program=program, variables=quiet)


def submit(setup: BridgeSetup, count: int, name: str = "Hemoglobin") -> None:
    async def send(store: Store) -> None:
        for number in range(count):
            await store.submit(messages.request_message(key=f"job-{number}", tests=[{"name": name, "value": "13.5", "unit": "g/dL"}]))

    setup.read(send)


def results_of(setup: BridgeSetup) -> list[str]:
    async def look(store: Store) -> list[str]:
        return [str(json.loads(each.body)["job_key"]) for each in await store.results.peek(limit=10 * JOBS)]

    return setup.read(look)


def wait_until(happened: Callable[[], bool], *, seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, f"{what} within {seconds:g} s"
        time.sleep(0.02)


@contextmanager
def lab_server(hosts: Hosts, host: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A light server on its host."""
    address = f"{hosts.address(host)}:{hosts.port}"
    command = hosts.command(host, sys.executable, "-m", "tests.support.bridge.lab_server", address, str(log), str(SECONDS[host]))
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    try:
        wait_until(log.exists, seconds=60, what="the server listens")
        yield process
    finally:
        process.kill()
        process.wait(30)


def caught_busy(process: subprocess.Popen[bytes], log: Path) -> set[str]:
    """Freeze a server while it has jobs in its hands; which."""
    until = time.monotonic() + 60
    while True:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        if held := served(log).unfinished:
            return held
        process.send_signal(signal.SIGCONT)
        assert time.monotonic() < until, "the server never has a job"
        time.sleep(0.01)


def run_into_trouble(folder: Path) -> Ended:
    """Have the jobs done while servers die, freeze, are slow and come."""
    with ExitStack() as stack:
        hosts = stack.enter_context(open_hosts(folder, len(SECONDS)))
        print(f"hosts are {hosts.kind}")
        logs = {host: folder / f"server-{host}.log" for host in SECONDS}
        servers = {host: stack.enter_context(lab_server(hosts, host, logs[host])) for host in SECONDS}
        setup = bridge_setup(hosts, folder / "bridge", BRIDGE_CONCURRENCY="8")
        hosts.point(KILLED, FROZEN, SLOW)
        submit(setup, JOBS)

        def done() -> int:
            return sum(len(served(log).ended) for log in logs.values())

        with setup.running():
            wait_until(lambda: done() >= 100, seconds=60, what="100 jobs are done")
            lost = {KILLED: caught_busy(servers[KILLED], logs[KILLED])}
            servers[KILLED].kill()
            wait_until(lambda: done() >= 200, seconds=60, what="200 jobs are done")
            lost[FROZEN] = caught_busy(servers[FROZEN], logs[FROZEN])
            wait_until(lambda: done() >= 220, seconds=60, what="220 jobs are done")
            hosts.point(FROZEN, SLOW, ADDED)
            jobs = setup.wait_for_jobs("succeeded", "failed", count=JOBS, seconds=120)
            wait_until(lambda: len(results_of(setup)) >= JOBS, seconds=60, what="all results are sent")
        return Ended(jobs=jobs, results=results_of(setup), notes={host: served(log) for host, log in logs.items()}, lost=lost)


def test_one_server_killed_one_frozen_one_slow_and_one_added_lose_no_job_and_do_none_twice(tmp_path: Path) -> None:
    ended = run_into_trouble(tmp_path)
    check_that_none_failed_or_cost_an_attempt(ended.jobs)
    check_that_none_was_done_twice(ended)
    check_that_what_was_lost_was_done_elsewhere(ended)
    check_that_none_waited_long(ended.jobs)
    assert len(ended.notes[ADDED].ended) > 100, "the added server gets its share"
    assert 0 < len(ended.notes[SLOW].ended) < len(ended.notes[ADDED].ended), "the slow server gets what it can do"


def check_that_none_failed_or_cost_an_attempt(jobs: Mapping[str, JobRecord], count: int = JOBS) -> None:
    assert {("succeeded", 0): count} == Counter((job.state.value, job.attempts) for job in jobs.values())


def check_that_none_was_done_twice(ended: Ended) -> None:
    assert sorted(ended.jobs) == sorted(ended.results)
    calls = Counter(key for each in ended.notes.values() for key in each.ended)
    assert [] == [key for key, count in calls.items() if count > 1], "no call that ended well was made again"
    asked = Counter(key for each in ended.notes.values() for key in each.begun)
    troubled = set().union(*ended.lost.values())
    assert {key for key, count in asked.items() if count > 1} <= troubled, "only what a lost server held was asked for again"


def check_that_what_was_lost_was_done_elsewhere(ended: Ended) -> None:
    for host, held in ended.lost.items():
        assert held, "the server was struck while it had a job"
        assert held <= {key for other, each in ended.notes.items() if other != host for key in each.ended}


def check_that_none_waited_long(jobs: Mapping[str, JobRecord]) -> None:
    waits = {job.key: (job.finished_at or 0) - (job.started_at or 0) for job in jobs.values()}
    assert {} == {key: seconds for key, seconds in waits.items() if not seconds < MOST_SECONDS}


def test_of_three_real_servers_one_is_killed_and_one_drains_while_jobs_run(tmp_path: Path) -> None:
    with ExitStack() as stack:
        hosts = stack.enter_context(open_hosts(tmp_path, 3))
        BUILDERS["all_minilm_l6_v2"](tmp_path / "models")
        flags = ("--services", "labs", "--engine", "onnxruntime", "--insecure")
        killed, drained, kept = (
            stack.enter_context(
                running_server(
                    tmp_path / "models", tmp_path, *flags, "--listen", f"{hosts.address(host)}:{hosts.port}", within=hosts.command(host)
                )
            )
            for host in (1, 2, 3)
        )
        for server in (killed, drained, kept):
            server.wait_for("ready")
        setup = bridge_setup(hosts, tmp_path / "bridge", BRIDGE_CONCURRENCY="4")
        hosts.point(1, 2, 3)
        submit(setup, 90)
        with setup.running():
            setup.wait_for_jobs("succeeded", count=15, seconds=120)
            killed.signal(signal.SIGKILL)
            setup.wait_for_jobs("succeeded", count=30, seconds=120)
            drained.signal(signal.SIGTERM)
            jobs = setup.wait_for_jobs("succeeded", "failed", count=90, seconds=120)
            wait_until(lambda: len(results_of(setup)) >= 90, seconds=60, what="all results are sent")
        assert 0 == drained.wait()
        check_that_none_failed_or_cost_an_attempt(jobs, 90)
        check_that_none_waited_long(jobs)
        assert sorted(jobs) == sorted(results_of(setup))
        assert {"matched"} == {test["status"] for job in jobs.values() for test in (job.result or {})["tests"]}
