"""Runs of the consensus pipeline, through workers that are killed at random and a language model that fails one call in five.

Twenty as a rule; a hundred with `--whole-matrix`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from bridge.ledger.port import JobRecord
from bridge.records.consensus import ConsensusRecords, NewRun, RunRecord
from bridge.systems.consensus import messages
from tests.support.bridge.bridge_process import BridgeSetup
from tests.support.bridge.consensus_runs import confidence, consensus_store, decision, new_run, statuses
from tests.support.bridge.killer import Killer
from tests.support.patience import Headway
from tests.support.servers.language_model import KEY, FakeLanguageModel, fake_language_model, one_in
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.pubsub_emulator import PubsubEmulator
from tests.support.servers.pubsub_server import PubsubServer, pubsub_server

pytestmark = pytest.mark.timeout(600)

BATCHES = 4
# One kill to so many runs at most: each costs a lease, and at Google's emulator a redelivery too.
RUNS_A_KILL = 3
# A worker that a busy machine holds up for less keeps its work; else it might ask what another has answered meanwhile.
LEASE_SECONDS = 10
PAUSE = (0.5, 1.5)
TOPIC, SUBSCRIPTION = "consensus-engine-jobs", "consensus-engine-jobs-sub"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What there was to see in the end."""

    runs: Mapping[str, RunRecord]
    jobs: Mapping[str, JobRecord]
    service: FakeLanguageModel
    kills: Counter[str]
    # The jobs that workers held when they were killed.
    orphaned: Set[str]
    log: str


@pytest.mark.parametrize("broker", ["fake", "google_emulator"])
async def test_every_run_ends_with_the_right_decision_and_nothing_is_paid_for_twice(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: PostgresServer, broker: str
) -> None:
    async with AsyncExitStack() as stack:
        if broker == "fake":
            server: PubsubServer | PubsubEmulator = await stack.enter_async_context(pubsub_server())
        else:
            server = request.getfixturevalue(broker)
        ideas = [f"idea {number}" for number in range(100 if request.config.getoption("whole_matrix") else 20)]
        ended = await _run(tmp_path, postgres, server, ideas)

    assert len(ended.runs) == len(ideas)
    assert {"SIGKILL", "SIGTERM"} == set(ended.kills)
    assert {key for key in ended.orphaned if ended.jobs[key].fence > 1}, "others took over what the killed had"
    assert {job.state for job in ended.jobs.values()} == {"succeeded"}
    for run in ended.runs.values():
        assert run.status == "completed"
        assert (run.decision or {}).get("decision") == run.decision_label == decision(run.input_idea)
        assert run.overall_weighted_confidence == pytest.approx(confidence(run.input_idea), abs=1e-4)
        assert Counter(statuses(run).values()) == {"completed": 7}
        assert len({review["persona_id"] for review in run.reviews}) == len(run.reviews) == 5
    _assert_nothing_was_asked_once_its_answer_was_committed(ended)
    told = [json.loads(line) for line in ended.log.splitlines() if line.startswith("{")]
    completed = Counter(line["run_id"] for line in told if line.get("lifecycle_event") == "job_completed")
    assert set(completed.values()) <= {1}, "the end of a run is told by whoever committed it"


def _assert_nothing_was_asked_once_its_answer_was_committed(ended: Ended) -> None:
    committed = {}
    for run in ended.runs.values():
        committed[f"/{run.input_idea}"] = next(step["completed_at"] for step in run.steps if step["step_name"] == "expand")
        for review in run.reviews:
            step = "review_security" if review["persona_id"] == "security_guardian" else f"review_{review['persona_id']}"
            committed[f"{review['persona_id']}/{run.input_idea}"] = next(
                entry["completed_at"] for entry in run.steps if entry["step_name"] == step
            )
    late = [call.about for call in ended.service.calls if call.moment.isoformat() > committed[call.about]]
    assert late == []


async def _run(folder: Path, postgres: PostgresServer, server: PubsubServer | PubsubEmulator, ideas: Sequence[str]) -> Ended:
    database = postgres.new_database()
    chance = random.Random(int(os.environ.get("LAMINA_KILL_SEED", "20261125")))
    server.create(TOPIC, SUBSCRIPTION)
    asked = [new_run(idea) for idea in ideas]
    with fake_language_model() as service:
        service.faults, service.seconds = one_in(5, seed=7), 0.05
        async with consensus_store(database) as (store, records):
            for run in asked:
                await records.create(run)
            setups = _setups(folder, database, server.address, service.url)
            progress = partial(_runs_done, postgres, database)
            killer = await asyncio.to_thread(Killer, setups, chance, database=database, pause=PAUSE, progress=progress)
            try:
                await _publish(server, asked, killer)
                headway = Headway()
                while left := sum(run.status not in {"completed", "failed"} for run in await _rows(records, asked)):
                    headway.check(left)
                    if killer.kills.total() < len(asked) // RUNS_A_KILL:
                        await asyncio.to_thread(killer.let_work_and_strike)
                    await asyncio.sleep(0.2)
            finally:
                await asyncio.to_thread(killer.close)
            runs = {run.id: run for run in await _rows(records, asked)}
            jobs = {job.key: job for job in await store.jobs.list(limit=1000)}
    log = "".join((folder / name / "bridge.log").read_text() for name in ("one", "two"))
    return Ended(runs=runs, jobs=jobs, service=service, kills=killer.kills, orphaned=killer.orphaned, log=log)


def _setups(folder: Path, database: str, broker: str, service: str) -> Sequence[BridgeSetup]:
    variables = {
        "BRIDGE_DATABASE": database,
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": service,
        "PUBSUB_PROJECT_ID": "trial",
        "PUBSUB_SUBSCRIPTION": SUBSCRIPTION,
        "PUBSUB_EMULATOR_HOST": broker,
        "RETRY_INITIAL_BACKOFF_SECONDS": "0.1",
        "BRIDGE_LEASE_SECONDS": str(LEASE_SECONDS),
        "BRIDGE_MAX_INTERRUPTIONS": "1000",
        "BRIDGE_MAX_SERVER_LOSSES": "1000",
        "BRIDGE_DRAIN_SECONDS": "1",
    }
    found = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        found.append(BridgeSetup(folder=folder / name, inference="", variables=variables))
    return found


async def _publish(server: PubsubServer | PubsubEmulator, asked: Sequence[NewRun], killer: Killer) -> None:
    """A quarter at a time, some of them twice, with a kill after each."""
    size = len(asked) // BATCHES
    for begin in range(0, len(asked), size):
        await asyncio.to_thread(killer.let_work)
        for number, run in enumerate(asked[begin : begin + size]):
            run_id = str(run.run_id)
            body = messages.message_of(run_id=run_id, run_type="initial", priority="normal", payload={"idea": run.input_idea})
            for _ in range(2 if number % 5 == 0 else 1):
                await _send(server, body, run_id)
        await asyncio.to_thread(killer.strike)


async def _send(server: PubsubServer | PubsubEmulator, body: bytes, run_id: str) -> None:
    attributes = {"run_id": run_id, "run_type": "initial", "priority": "normal"}
    if isinstance(server, PubsubServer):
        server.publish(TOPIC, body, **attributes)
    else:
        await asyncio.to_thread(server.publish, TOPIC, body, **attributes)


async def _rows(records: ConsensusRecords, asked: Sequence[NewRun]) -> list[RunRecord]:
    found = [await records.find(str(run.run_id)) for run in asked]
    return [run for run in found if run is not None]


def _runs_done(postgres: PostgresServer, database: str) -> object:
    """How many runs are completed. That others are claimed is no progress: whoever claims one may be killed over it next."""
    return postgres.run("SELECT count(*) FROM runs WHERE status = 'COMPLETED'", database=database.rpartition("/")[2])
