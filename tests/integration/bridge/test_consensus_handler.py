"""The consensus system on a real PostgreSQL, with a real HTTP server in the language model's place."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.testclient import TestClient

from bridge.commands.dead import _place
from bridge.dead.sqs import SqsDeadQueue
from bridge.errors import ConfigurationError, LeaseLostError, OverloadError, PermanentError, TransientError
from bridge.http.runs import RunRoutes
from bridge.ledger.port import Claim
from bridge.llm.responses import CallPolicy, ResponsesModel
from bridge.records.consensus import ConsensusRecords, NewRun, RunRecord
from bridge.settings import load
from bridge.store import Store, open_store
from bridge.systems.consensus.handler import ConsensusHandler
from bridge.systems.consensus.options import ModelChoice, RunOptions
from tests.support.bridge.claimed_context import ClaimedContext
from tests.support.bridge.consensus_runs import confidence, consensus_store, decision, job_of, new_run, statuses
from tests.support.moved_clock import moved_clock
from tests.support.patience import PATIENCE_SECONDS
from tests.support.servers.fault_proxy import FaultProxy
from tests.support.servers.language_model import KEY, Call, FakeLanguageModel, Fault, fake_language_model

CHOICE = ModelChoice(model="gpt-5.1", temperature=0.7)
OPTIONS = RunOptions(expand=CHOICE, review=ModelChoice(model="gpt-5.1", temperature=0.2), aggregate=CHOICE)
PERSONAS = ["architect", "critic", "optimist", "security_guardian", "user_advocate"]


@dataclass
class Office:
    """The handler and all that it works with."""

    database: str
    store: Store
    records: ConsensusRecords
    service: FakeLanguageModel
    model: ResponsesModel

    async def work(self, run: NewRun, options: RunOptions = OPTIONS, **edits: Any) -> RunRecord:
        """Work on a run as the worker does; returns its row."""
        job = job_of(run, **edits)
        handler = ConsensusHandler(records=self.records, model=self.model, options=options)
        claim = await self.store.ledger.claim(job, worker="tester", lease_seconds=60)
        assert isinstance(claim, Claim)
        try:
            outcome = await handler.handle(job, ClaimedContext(self.store, claim))
        except (TransientError, OverloadError):
            await self.store.ledger.release(claim, error="failed")
            raise
        except PermanentError as error:
            outcome = handler.failure(job, str(error))
        await self.store.ledger.finish(claim, outcome)
        return await self.row(run)

    async def row(self, run: NewRun) -> RunRecord:
        found = await self.records.find(str(run.run_id))
        assert found is not None
        return found

    async def asked(self, idea: str, **changes: Any) -> NewRun:
        run = new_run(idea, **changes)
        await self.records.create(run)
        return run


@pytest.fixture
def service() -> Iterator[FakeLanguageModel]:
    with fake_language_model() as running:
        yield running


@pytest.fixture
async def office(new_postgres_database: Callable[[], str], service: FakeLanguageModel) -> AsyncIterator[Office]:
    model = ResponsesModel(
        api_key=KEY, base_url=service.url, policy=CallPolicy(tries=2, wait=0.01, seconds=60, prices={"gpt-5.1": (1, 10)})
    )
    database = new_postgres_database()
    async with consensus_store(database) as (store, records):
        yield Office(database, store, records, service, model)
    await model.close()


def failing_for(persona: str, *faults: Fault) -> Callable[[Call], Fault]:
    left = list(faults)
    return lambda call: left.pop(0) if call.persona == persona and left else None


async def test_a_run_goes_through_all_steps_to_its_decision(office: Office) -> None:
    run = await office.work(await office.asked("idea 1", extra_context={"budget": 5}))

    assert (run.status, run.decision_label) == ("completed", decision("idea 1"))
    assert run.overall_weighted_confidence == pytest.approx(confidence("idea 1"), abs=1e-4)
    assert set(statuses(run).values()) == {"completed"}
    assert [step["step_order"] for step in run.steps] == [0, 1, 2, 3, 4, 5, 6]
    assert sorted(review["persona_id"] for review in run.reviews) == PERSONAS
    assert run.proposal is not None
    assert run.decision is not None
    assert run.decision["decision"] == run.decision_label
    assert run.started_at is not None
    assert run.completed_at is not None
    assert '"budget": 5' in office.service.calls[0].body["input"], "context that is an object is no error"


async def test_statuses_are_stored_in_upper_case(office: Office) -> None:
    run = await office.work(await office.asked("idea 1"))

    rows = (await office.store.database.look(text("SELECT status, run_type, priority FROM runs"))).rows
    steps = (await office.store.database.look(text("SELECT DISTINCT status FROM step_progress"))).rows
    assert [tuple(row.values()) for row in rows] == [("COMPLETED", "INITIAL", "NORMAL")]
    assert [row["status"] for row in steps] == ["COMPLETED"]
    assert run.status == "completed"


async def test_each_steps_row_tells_how_it_was_asked_and_what_it_cost(office: Office) -> None:
    run = await office.work(await office.asked("idea 1"))

    told = {step["step_name"]: step["step_metadata"] for step in run.steps}
    assert told["expand"]["model"] == "gpt-5.1"
    assert (told["review_critic"]["temperature"], told["review_critic"]["max_retries"]) == (0.2, 3)
    assert told["review_critic"]["usage"] == {"calls": 1, "input_tokens": 100, "output_tokens": 50, "cost_usd": 0.0006}
    assert told["aggregate_decision"]["run_usage"] == {"calls": 6, "input_tokens": 600, "output_tokens": 300, "cost_usd": 0.0036}
    review = next(row for row in run.reviews if row["persona_id"] == "critic")
    assert review["prompt_parameters_json"] == {
        "model": "gpt-5.1",
        "temperature": 0.2,
        "persona_template_version": "1.0.0",
        "prompt_set_version": "1.0.0",
    }
    assert review["review"]["internal_metadata"].keys() == {"model", "latency", "request_id", "timestamp"}


async def test_the_runs_own_parameters_come_before_the_settings(office: Office) -> None:
    parameters = {"expand_model": "other", "expand_temperature": 0.1, "review_model": "another", "review_temperature": 1}
    await office.work(await office.asked("idea 1", parameters=parameters))

    asked = {(call.shape, call.body["model"], call.body["temperature"]) for call in office.service.calls}
    assert asked == {("ExpandedProposal", "other", 0.1), ("PersonaReview", "another", 1.0)}


async def test_a_later_try_pays_only_for_what_is_missing(office: Office) -> None:
    office.service.faults = failing_for("critic", 500, 500)
    run = await office.asked("idea 1")
    with pytest.raises(TransientError, match="Reviews failed: LLM_SERVICE_ERROR"):
        await office.work(run)
    between = await office.row(run)
    asked_before = len(office.service.calls)

    row = await office.work(run)

    assert between.status == "running"
    assert statuses(between)["review_critic"] == "failed"
    assert statuses(between)["review_optimist"] == "completed", "what was paid for is kept, though another failed"
    assert len(office.service.calls) == asked_before + 1
    assert office.service.answered.total() == 6
    assert (row.status, statuses(row)["review_critic"]) == ("completed", "completed")
    failed = next(step for step in row.steps if step["step_name"] == "review_critic")
    assert failed["error_message"] is None
    usage = next(step for step in row.steps if step["step_name"] == "aggregate_decision")["step_metadata"]["run_usage"]
    assert usage["calls"] == 6, "what an earlier try has cost is counted"


async def test_a_service_that_is_busy_fails_no_step(office: Office) -> None:
    office.service.faults = lambda _call: 429
    run = await office.asked("idea 1")

    with pytest.raises(OverloadError):
        await office.work(run)

    assert statuses(await office.row(run))["expand"] == "running"


async def test_a_hopeless_failure_fails_the_run_and_says_at_which_step(office: Office) -> None:
    office.service.faults = lambda _call: 400

    run = await office.work(await office.asked("idea 1"))

    assert run.status == "failed"
    assert run.completed_at is not None
    expand = run.steps[0]
    assert (expand["status"], expand["error_message"].startswith("Expand failed: LLM_SERVICE_ERROR: 400")) == ("failed", True)


async def test_a_failed_run_whose_message_is_sent_again_from_a_queue_of_dead_ones_is_queued(office: Office) -> None:
    office.service.faults = lambda _call: 400
    asked = await office.asked("idea 1")
    assert (await office.work(asked)).status == "failed"

    async with _place(office.store, "jobs_error") as place:
        assert isinstance(place, SqsDeadQueue)
        assert await place._reopen(str(asked.run_id))

    assert (await office.row(asked)).status == "queued"


async def test_a_reviewer_who_answers_as_somebody_else_is_taken_for_whom_we_asked(office: Office) -> None:
    office.service.faults = lambda call: "wrong persona" if call.persona else None

    run = await office.work(await office.asked("idea 1"))

    assert run.status == "completed"
    assert sorted(review["persona_id"] for review in run.reviews) == PERSONAS
    assert {review["review"]["internal_metadata"]["answered_as"] for review in run.reviews} == {"somebody_else"}


async def test_personas_are_asked_side_by_side_but_no_more_than_allowed(office: Office) -> None:
    everyone = threading.Barrier(len(PERSONAS))
    office.service.review = _then(lambda: everyone.wait(PATIENCE_SECONDS))
    run = await office.work(await office.asked("idea 1"), replace(OPTIONS, parallel_reviews=5))
    assert run.status == "completed", "all were asked before the first had answered"

    alone, together = threading.Lock(), []

    def answer_alone() -> None:
        if not alone.acquire(blocking=False):
            together.append(1)
            return
        time.sleep(0.05)
        alone.release()

    office.service.review = _then(answer_alone)
    assert (await office.work(await office.asked("idea 2"), replace(OPTIONS, parallel_reviews=1))).status == "completed"
    assert [] == together


def _then(happens: Callable[[], object]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Something happens before a review is given."""

    def review(given: dict[str, Any]) -> dict[str, Any]:
        happens()
        return given

    return review


async def test_a_step_that_takes_too_long_is_cut_off_and_tried_again(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.service.faults = lambda call: None if call.persona else "slow"
    clock = moved_clock(monkeypatch)
    office.service.while_slow = lambda: clock.sleep(51)
    run = await office.asked("idea 1")

    with pytest.raises(TransientError, match="Expand failed: the step took longer"):
        await office.work(run, replace(OPTIONS, step_seconds=50))

    assert statuses(await office.row(run))["expand"] == "failed"


async def test_a_run_that_takes_too_long_is_cut_off_and_fails(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.service.faults = lambda _call: "slow"
    clock = moved_clock(monkeypatch)
    office.service.while_slow = lambda: clock.sleep(51)

    run = await office.work(await office.asked("idea 1"), replace(OPTIONS, job_seconds=50))

    assert run.status == "failed"
    assert run.steps[0]["error_message"] == "Expand failed: the run took longer than 50 s (WORKER_JOB_TIMEOUT_SECONDS)"


async def test_a_run_that_uses_up_its_budget_fails_with_what_it_has_used(office: Office) -> None:
    run = await office.work(await office.asked("idea 1"), replace(OPTIONS, most_tokens=150, parallel_reviews=1))
    dear = await office.work(await office.asked("idea 2"), replace(OPTIONS, most_cost=0.0012, parallel_reviews=1))

    assert (run.status, dear.status) == ("failed", "failed")
    assert "150 tokens of its 150 (BRIDGE_LLM_RUN_TOKENS)" in str([step["error_message"] for step in run.steps])
    assert "0.0012 of its 0.0012 US dollars" in str([step["error_message"] for step in dear.steps])


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "failed"])
async def test_a_run_that_has_ended_is_skipped(office: Office, status: str) -> None:
    run = await office.asked("idea 1")
    await office.store.database.change(text("UPDATE runs SET status = :status"), {"status": status})

    row = await office.work(run)

    assert row.status == status.lower()
    assert office.service.calls == []


async def test_steps_whose_rows_another_worker_had_stored_end_with_the_run(office: Office) -> None:
    """It was ended between its rows and their steps."""
    run = await office.asked("idea 1")
    await office.work(run)
    asked = len(office.service.calls)
    for statement in (
        "UPDATE runs SET status = 'RUNNING', completed_at = NULL",
        "UPDATE step_progress SET status = 'RUNNING', completed_at = NULL WHERE step_name <> 'review_critic'",
        "UPDATE step_progress SET status = 'FAILED', error_message = 'Reviews failed: ended' WHERE step_name = 'review_critic'",
        "DELETE FROM decisions",
        "DELETE FROM lamina.jobs",
    ):
        await office.store.database.change(text(statement))

    row = await office.work(run)

    assert (row.status, asked) == ("completed", len(office.service.calls))
    assert set(statuses(row).values()) == {"completed"}
    assert [step["step_name"] for step in row.steps if step["error_message"] or not step["completed_at"]] == []


async def test_tables_out_of_reach_are_no_failure_of_the_run(office: Office) -> None:
    run = await office.asked("idea 1")
    parts = urlsplit(office.database)
    async with FaultProxy(parts.port or 5432) as proxy:
        address = parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}").geturl()
        async with open_store(load(database=address)) as store:
            office.records = ConsensusRecords(store.database)
            proxy.refuse()
            with pytest.raises(OverloadError):
                await office.work(run)


async def test_parameters_that_are_none_leave_the_settings(office: Office) -> None:
    run = await office.asked("idea 1")
    await office.store.database.change(text("UPDATE runs SET parameters_json = 'null', extra_context = '[\"text\"]'"))

    assert (await office.work(run)).status == "completed"
    assert [call.body["temperature"] for call in office.service.calls] == [0.7, 0.2, 0.2, 0.2, 0.2, 0.2]


async def test_a_run_without_a_row_is_tried_again(office: Office) -> None:
    with pytest.raises(TransientError, match="no run"):
        await office.work(new_run("idea 1"))


async def completed_parent(office: Office, changes: Mapping[str, Mapping[str, Any]]) -> NewRun:
    office.service.review = lambda review: {**review, "confidence_score": 0.9, **changes.get(review["persona_id"], {})}
    parent = await office.asked("idea 1")
    assert (await office.work(parent)).status == "completed"
    office.service.calls.clear()
    return parent


async def test_a_revision_applies_the_edits_and_asks_again_only_who_had_doubts(office: Office) -> None:
    issue = [{"text": "Keys in the open", "security_critical": True}]
    parent = await completed_parent(
        office,
        {"architect": {"confidence_score": 0.69}, "critic": {"confidence_score": 0.7}, "security_guardian": {"blocking_issues": issue}},
    )
    run = await office.asked("idea 1", run_type="revision", parent_run_id=parent.run_id)

    row = await office.work(run, edited_proposal={"title": "Edited title"}, edit_notes="Make it shorter")

    assert {call.persona for call in office.service.calls} == {"", "architect", "security_guardian"}
    asked = office.service.calls[0].body
    assert [part in asked["input"] for part in ("Edited title", "Make it shorter", "The problem of idea 1")] == [True] * 3
    reused = {review["persona_id"]: review["review"]["internal_metadata"].get("reused") for review in row.reviews}
    assert reused == {"architect": None, "critic": True, "optimist": True, "security_guardian": None, "user_advocate": True}
    assert (row.status, len(row.reviews), row.edit_notes) == ("completed", 5, "Make it shorter")
    stored = (await office.store.database.look(text("SELECT proposal_diff_json FROM proposal_versions ORDER BY edit_notes LIMIT 1"))).first
    assert stored is not None
    assert stored["proposal_diff_json"]["raw_idea"].keys() == {"old", "new"}


async def test_a_revision_of_nothing_fails_with_the_parent_named(office: Office) -> None:
    parent = await office.asked("idea 1")
    run = await office.asked("idea 2", run_type="revision", parent_run_id=parent.run_id)

    assert (await office.work(run)).status == "failed"


async def test_a_stale_worker_writes_nothing(office: Office) -> None:
    run = await office.asked("idea 1")
    stale = await office.store.ledger.claim(job_of(run), worker="stale", lease_seconds=0.2)
    assert isinstance(stale, Claim)
    await asyncio.sleep(0.3)
    await office.work(run)
    handler = ConsensusHandler(records=office.records, model=office.model, options=OPTIONS)
    before = await office.row(run)

    with pytest.raises(LeaseLostError):
        await office.store.ledger.finish(stale, handler.failure(job_of(run), "stale"))

    assert await office.row(run) == before


async def test_tables_that_are_missing_are_named(new_postgres_database: Callable[[], str]) -> None:
    async with open_store(load(database=new_postgres_database())) as store:
        with pytest.raises(ConfigurationError, match=r"runs, proposal_versions.*bridge migrate --with consensus"):
            await ConsensusRecords(store.database).check()


async def test_a_run_is_shown_in_the_platforms_shape(office: Office) -> None:
    run, waiting = await office.asked("idea 1"), await office.asked("idea 2")
    await office.store.database.change(text("DELETE FROM step_progress WHERE run_id = :id"), {"id": waiting.run_id})
    await office.work(run)
    rows = {str(run.run_id): await office.row(run), str(waiting.run_id): await office.row(waiting)}

    async def find(run_id: str) -> RunRecord | None:
        return rows.get(run_id)

    client = TestClient(Starlette(routes=list(RunRoutes(find).routes())))
    shown = client.get(f"/v1/runs/{run.run_id}").json()
    assert (shown["run_id"], shown["status"], shown["decision_label"]) == (str(run.run_id), "completed", decision("idea 1"))
    assert (shown["run_type"], shown["priority"], shown["retry_count"], shown["schema_version"]) == ("initial", "normal", 0, "1.0.0")
    assert shown["persona_reviews"][0].keys() == {
        "persona_id",
        "persona_name",
        "confidence_score",
        "blocking_issues_present",
        "prompt_parameters_json",
    }
    assert [review["persona_id"] for review in shown["persona_reviews"]] == PERSONAS
    assert shown["proposal"]["title"] == "A title"
    assert shown["decision"]["weighted_confidence"] == pytest.approx(confidence("idea 1"))
    pending = client.get(f"/v1/runs/{waiting.run_id}").json()
    assert [step["status"] for step in pending["step_progress"]] == ["pending"] * 7
    assert (pending["proposal"], pending["decision"], pending["persona_reviews"]) == (None, None, [])

    for path, status, code in [
        ("no-uuid", 400, "VALIDATION_ERROR"),
        ("00000000-0000-0000-0000-000000000000", 404, "NOT_FOUND"),
    ]:
        refused = client.get(f"/v1/runs/{path}")
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    other = client.get(f"/v1/runs/{run.run_id}", headers={"X-Schema-Version": "2.0.0"})
    assert (other.status_code, other.json()["code"]) == (400, "UNSUPPORTED_VERSION")
