"""Runs of the consensus pipeline: their tables in a database, their rows, and what they must come to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from bridge.database.platforms import create_tables
from bridge.job import Job
from bridge.records.consensus import ConsensusRecords, NewRun, RunRecord
from bridge.settings import load
from bridge.store import Store, open_store
from bridge.systems.consensus.steps import STEPS
from tests.support.servers.language_model import confidence_of

WEIGHTS = {"architect": 0.25, "critic": 0.25, "optimist": 0.15, "security_guardian": 0.20, "user_advocate": 0.15}


@asynccontextmanager
async def consensus_store(database: str) -> AsyncIterator[tuple[Store, ConsensusRecords]]:
    """A ledger beside the platform's tables."""
    async with open_store(load(database=database)) as store:
        await create_tables(store.database, "consensus")
        yield store, ConsensusRecords(store.database)


def new_run(idea: str, **changes: Any) -> NewRun:
    """A run as the platform's web service writes it."""
    facts: dict[str, Any] = {
        "run_id": uuid4(),
        "input_idea": idea,
        "extra_context": None,
        "run_type": "initial",
        "priority": "normal",
        "parent_run_id": None,
        "model": "gpt-5.1",
        "temperature": 0.7,
        "parameters": {},
        "version": "1.0.0",
        "steps": [step.name for step in STEPS],
    }
    return NewRun(**{**facts, **changes})


def job_of(run: NewRun, **edits: Any) -> Job:
    """The job that works on it."""
    return Job(key=str(run.run_id), system="consensus", request={"run_id": str(run.run_id), "run_type": run.run_type, **edits})


def confidence(idea: str) -> float:
    """What the fake reviews of an idea come to, by hand."""
    return sum(weight * confidence_of(persona, idea) for persona, weight in WEIGHTS.items())


def decision(idea: str) -> str:
    """What is decided on an idea, by hand: no fake review blocks."""
    measured = round(confidence(idea), 9)
    return "approve" if measured >= 0.8 else "revise" if measured >= 0.6 else "reject"


async def ended(records: ConsensusRecords, run_id: UUID | str, *, seconds: float = 60) -> RunRecord:
    """The run, once it has ended."""
    async with asyncio.timeout(seconds):
        while True:
            run = await records.find(str(run_id))
            if run is not None and run.status in {"completed", "failed"}:
                return run
            await asyncio.sleep(0.1)


def statuses(run: RunRecord) -> Mapping[str, str]:
    """Where each step stands."""
    return {step["step_name"]: step["status"] for step in run.steps}
