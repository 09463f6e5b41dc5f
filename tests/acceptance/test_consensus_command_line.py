"""The consensus pipeline as a person uses it: commands, a bridge as its own process, its HTTP, a language model's service."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO
from uuid import uuid4

import pytest

from tests.support.bridge.bridge_process import BridgeSetup, finished
from tests.support.bridge.consensus_runs import confidence, decision
from tests.support.ports import free_address
from tests.support.servers.language_model import KEY, FakeLanguageModel, fake_language_model
from tests.support.servers.postgres import PostgresServer

pytestmark = pytest.mark.timeout(180)
IDEA = "We should do idea 1."


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A bridge that takes runs from its embedded queue."""

    setup: BridgeSetup
    service: FakeLanguageModel
    http: str

    def submitted(self, *arguments: str) -> tuple[str, str]:
        """The id of a run, and what was shown until it ended; it must end well."""
        process = self.setup.start("submit", "consensus", *arguments, "--wait")
        told, shown = process.communicate(timeout=90)
        assert process.returncode == 0, shown
        return told.strip(), shown

    def run(self, run_id: str) -> dict[str, object]:
        """A run as the HTTP server shows it."""
        with urllib.request.urlopen(f"http://{self.http}/v1/runs/{run_id}", timeout=60) as answer:
            return dict(json.load(answer))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Pipeline]:
    http = free_address()
    with fake_language_model() as service:
        variables = {
            "BRIDGE_DATABASE": postgres.new_database(),
            "BRIDGE_HTTP": http,
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": service.url,
            "PUBSUB_USE_MOCK": "true",
            "RETRY_INITIAL_BACKOFF_SECONDS": "0.1",
            "BRIDGE_MAX_ATTEMPTS": "1",
        }
        setup = BridgeSetup(folder=tmp_path_factory.mktemp("consensus"), inference="", variables=variables)
        assert "has the tables of consensus" in setup.call("migrate", "--with", "consensus")
        assert "has the tables of consensus" in setup.call("migrate", "--with", "consensus"), "a second time does no harm"
        with setup.running():
            yield Pipeline(setup=setup, service=service, http=http)


def test_an_idea_is_submitted_and_its_steps_are_shown_until_the_decision(pipeline: Pipeline) -> None:
    run_id, shown = pipeline.submitted("--idea", IDEA, "--extra-context", '{"budget": 5}', "--high")

    run = pipeline.run(run_id)
    assert (run["status"], run["decision_label"], run["priority"]) == ("completed", decision("idea 1"), "high")
    assert run["overall_weighted_confidence"] == pytest.approx(confidence("idea 1"), abs=1e-4)
    assert run["extra_context"] == {"budget": 5}
    assert all(
        step in shown for step in ("expand", "review_architect", "review_security", "aggregate_decision", str(run["decision_label"]))
    )
    assert "completed" in pipeline.setup.call("runs", "show", run_id)
    assert json.loads(pipeline.setup.call("runs", "show", run_id, "--json")) == run


def test_a_completed_run_is_revised(pipeline: Pipeline) -> None:
    parent, _ = pipeline.submitted("--idea", IDEA)

    run_id, _ = pipeline.submitted("--revise", parent, "--edit-notes", "Make it shorter")

    run = pipeline.run(run_id)
    assert (run["run_type"], run["parent_run_id"], run["status"]) == ("revision", parent, "completed")
    assert any("Make it shorter" in call.body["input"] for call in pipeline.service.calls)


def test_a_failed_run_is_retried_and_goes_on_where_it_was(pipeline: Pipeline) -> None:
    pipeline.service.faults = lambda call: 400 if call.persona == "critic" else None
    process = pipeline.setup.start("submit", "consensus", "--idea", IDEA, "--wait")
    told, shown = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "Reviews failed: LLM_SERVICE_ERROR: 400" in " ".join(shown.split())
    run_id = told.strip()
    assert pipeline.run(run_id)["status"] == "failed"
    pipeline.service.faults = lambda _call: None
    pipeline.service.calls.clear()

    assert "retry 1" in pipeline.setup.call("runs", "retry", run_id)

    ended = json.loads(_shown_until_ended(pipeline, run_id))
    assert (ended["status"], ended["retry_count"]) == ("completed", 1)
    assert [call.persona for call in pipeline.service.calls] == ["critic"], "nothing that was paid for is asked again"
    assert "is completed" in _refused(pipeline, "runs", "retry", run_id)


def test_a_failed_run_goes_on_when_its_dead_letter_is_replayed(pipeline: Pipeline) -> None:
    pipeline.service.faults = lambda call: 400 if call.persona == "critic" else None
    failing = pipeline.setup.start("submit", "consensus", "--idea", IDEA, "--wait")
    run_id = failing.communicate(timeout=90)[0].strip()
    pipeline.service.faults = lambda _call: None
    [letter] = [each for each in json.loads(pipeline.setup.call("dead", "list", "--json")) if each["job_key"] == run_id]

    pipeline.setup.call("dead", "replay", str(letter["id"]))

    ended = _until_completed(pipeline, run_id)
    assert (ended["status"], ended["retry_count"]) == ("completed", 1)


def test_a_message_as_the_platform_publishes_it_is_worked_on_from_standard_input(pipeline: Pipeline) -> None:
    first, _ = pipeline.submitted("--idea", IDEA)
    message = json.dumps({"run_id": first, "run_type": "initial", "priority": "normal", "payload": {}})

    told = finished(pipeline.setup.start("submit", "consensus", "--message", "-", "--wait", given=message), seconds=90)

    assert told.strip() == first


def test_a_run_that_the_platform_queues_again_is_worked_on_though_it_has_ended_before(pipeline: Pipeline, postgres: PostgresServer) -> None:
    """Its row is the truth. Nothing that is stored is asked for again."""
    run_id, _ = pipeline.submitted("--idea", IDEA)
    asked, database = len(pipeline.service.calls), pipeline.setup.variables["BRIDGE_DATABASE"].rpartition("/")[2]
    message = json.dumps({"run_id": run_id, "run_type": "initial", "priority": "normal", "payload": {}})
    postgres.run(f"UPDATE runs SET status = 'QUEUED', completed_at = NULL WHERE id = '{run_id}'", database=database)

    finished(pipeline.setup.start("submit", "consensus", "--message", "-", "--wait", given=message), seconds=90)

    assert (pipeline.run(run_id)["status"], len(pipeline.service.calls)) == ("completed", asked)


def _left_by_the_old_worker(pipeline: Pipeline, postgres: PostgresServer, status: str) -> str:
    run_id = str(uuid4())
    postgres.run(
        "INSERT INTO runs (id, status, input_idea, run_type, priority, model, temperature, parameters_json) "
        f"VALUES ('{run_id}', '{status}', '{IDEA}', 'INITIAL', 'NORMAL', 'gpt-5.1', 0.7, '{{}}')",
        database=pipeline.setup.variables["BRIDGE_DATABASE"].rpartition("/")[2],
    )
    return run_id


def test_a_run_that_the_old_worker_left_running_is_asked_for_again(pipeline: Pipeline, postgres: PostgresServer) -> None:
    """Its message is gone: after five deliveries Pub/Sub had put it aside."""
    run_id = _left_by_the_old_worker(pipeline, postgres, "RUNNING")

    pipeline.setup.call("runs", "retry", run_id)

    assert _until_completed(pipeline, run_id)["retry_count"] == 0


def test_a_run_that_the_old_worker_failed_is_retried_though_its_message_came_to_us(pipeline: Pipeline, postgres: PostgresServer) -> None:
    run_id = _left_by_the_old_worker(pipeline, postgres, "FAILED")
    message = {"run_type": "initial", "priority": "normal", "payload": {}}
    with (pipeline.setup.folder / "bridge.log").open() as log:
        log.seek(0, 2)
        pipeline.setup.start("submit", "consensus", "--message", "-", given=json.dumps({"run_id": run_id, **message})).communicate(
            timeout=90
        )
        skip = next(line for line in _lines(log) if line.get("lifecycle_event") == "idempotent_skip")
    assert (run_id, "FAILED") == (skip["run_id"], skip["status"])

    pipeline.setup.call("runs", "retry", run_id)

    assert json.loads(_shown_until_ended(pipeline, run_id))["status"] == "completed"


def test_the_events_of_a_runs_life_are_logged_with_the_platforms_fields(pipeline: Pipeline) -> None:
    with (pipeline.setup.folder / "bridge.log").open() as log:
        log.seek(0, 2)
        run_id, _ = pipeline.submitted("--idea", IDEA)
        told = list(_until(_lines(log), "message_acknowledged"))
        pipeline.service.faults = lambda call: 400 if call.persona == "critic" else None
        failing = pipeline.setup.start("submit", "consensus", "--idea", IDEA, "--wait")
        failed_id = failing.communicate(timeout=90)[0].strip()
        pipeline.service.faults = lambda _call: None
        failed = list(_until(_lines(log), "message_acknowledged"))
        again = json.dumps({"run_id": failed_id, "run_type": "initial", "priority": "normal", "payload": {}})
        pipeline.setup.start("submit", "consensus", "--message", "-", given=again).communicate(timeout=90)
        skipped = list(_until(_lines(log), "message_acknowledged"))

    fields = {event: _fields(told, event) for event in _EVENTS_OF_SUCCESS}
    assert fields == {event: _EVENTS_OF_SUCCESS[event] for event in fields}
    assert {line["run_id"] for line in told if line.get("lifecycle_event")} == {run_id}
    assert [line["step_name"] for line in told if line.get("lifecycle_event") == "step_completed"].count("expand") == 1
    [ended] = [line for line in told if line.get("lifecycle_event") == "job_completed"]
    assert (decision("idea 1"), 0) == (ended["decision"], ended["retry_count"])
    assert [{"run_id", "message_id", "message_latency_ms"} <= told[-1].keys(), told[-1]["run_id"]] == [True, run_id]
    assert _fields(failed, "step_failed") == [{"run_id", "step_name", "error_message", "latency_ms"}]
    assert _fields(failed, "job_failed") == [{"run_id", "job_latency_ms", "error", "retry_count"}]
    assert _fields(skipped, "idempotent_skip") == [{"run_id", "status"}]


_VERSIONS = {"schema_version", "prompt_set_version"}
# Of each event, the fields of each time that it is told.
_EVENTS_OF_SUCCESS = {
    "job_started": [{"run_id", "run_type", "priority", "retry_count"}, {"run_id", "status"}],
    "version_audit": [{"run_id", *_VERSIONS}],
    "step_started": [{"run_id", "step_name", *_VERSIONS}] * 7,
    "step_completed": [{"run_id", "step_name", "latency_ms"}] * 7,
    "reviews_started": [{"run_id", "run_type", *_VERSIONS}],
    "reviews_completed": [{"run_id", "review_count", "latency_ms"}],
    "job_completed": [{"run_id", "job_latency_ms", "decision", "confidence", "retry_count"}],
}
# Of every line.
_OF_LOGS = {"event", "level", "timestamp", "lifecycle_event", "message_id", "job", "system", "trace_id"}


def _fields(told: list[dict[str, object]], event: str) -> list[set[str]]:
    return [line.keys() - _OF_LOGS for line in told if line.get("lifecycle_event") == event]


def _lines(log: TextIO) -> Iterator[dict[str, object]]:
    """What is logged from now on."""
    until, part = time.monotonic() + 60, ""
    while time.monotonic() < until:
        part += log.readline()
        if part.endswith("\n"):
            yield json.loads(part)
            part = ""
        else:
            time.sleep(0.05)
    raise AssertionError("what was looked for was not logged")


def _until(lines: Iterator[dict[str, object]], event: str) -> Iterator[dict[str, object]]:
    for line in lines:
        yield line
        if line["event"] == event:
            return


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("submit", "consensus"), "--idea is empty"),
        (("submit", "consensus", "--idea", "x" * 10_001), "MAX_IDEA_LENGTH"),
        (("submit", "consensus", "--idea", "An idea", "--edit-notes", "Shorter"), "--revise"),
        (("submit", "consensus", "--revise", "7"), "no UUID"),
        (("submit", "consensus", "--revise", str(uuid4())), "there is none"),
        (("submit", "consensus", "--message", "{}"), "run_id"),
        (("runs", "retry", str(uuid4())), "there is no run"),
        (("runs", "show", "7"), "no UUID"),
        (("migrate", "--with", "nobody"), "consensus"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(pipeline: Pipeline, arguments: tuple[str, ...], named: str) -> None:
    told = _refused(pipeline, *arguments)

    assert named in told
    assert "Traceback" not in told


def _refused(pipeline: Pipeline, *arguments: str) -> str:
    process = pipeline.setup.start(*arguments)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    return errors


def _until_completed(pipeline: Pipeline, run_id: str) -> dict[str, object]:
    until = time.monotonic() + 60
    while (run := pipeline.run(run_id))["status"] != "completed":
        assert time.monotonic() < until, run
        time.sleep(0.1)
    return run


def _shown_until_ended(pipeline: Pipeline, run_id: str) -> str:
    message = json.dumps({"run_id": run_id, "run_type": "initial", "priority": "normal", "payload": {}})
    finished(pipeline.setup.start("submit", "consensus", "--message", message, "--wait"), seconds=90)
    return pipeline.setup.call("runs", "show", run_id, "--json")
