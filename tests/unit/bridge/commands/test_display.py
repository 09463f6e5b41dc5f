"""What the tables say of a job."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from bridge.commands.display import job_details, jobs_table
from bridge.ledger.facts import job_facts
from bridge.ledger.port import JobRecord, State

RECORD = JobRecord(
    key="one",
    system="labs",
    state=State.WAITING,
    fence=2,
    attempts=1,
    request={},
    result=None,
    last_error="the server was full",
    progress=0.5,
    stage="tests",
    created_at=0.0,
    started_at=1.0,
    finished_at=None,
)


def _text(table: Table) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_tries_are_told_as_failed_ones() -> None:
    assert "failed tries" in _text(jobs_table([RECORD]))
    assert "failed tries" in _text(job_details(job_facts(RECORD)))


@pytest.mark.parametrize("state", [State.RUNNING, State.QUEUED])
def test_an_error_that_a_job_has_got_past_is_told_as_that(state: State) -> None:
    record = replace(RECORD, state=state)

    assert "earlier: the server was full" in _text(jobs_table([record]))
    assert "error of an earlier try" in _text(job_details(job_facts(record)))


@pytest.mark.parametrize("state", [State.WAITING, State.FAILED])
def test_the_error_that_a_job_stands_at_is_told_as_it_is(state: State) -> None:
    record = replace(RECORD, state=state)

    assert "earlier" not in _text(jobs_table([record]))
    assert "last_error" in _text(job_details(job_facts(record)))
