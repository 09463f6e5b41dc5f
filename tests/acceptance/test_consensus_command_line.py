"""The consensus pipeline as a person uses it: commands, a bridge as its own process, its HTTP, a language model's service."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from tests.support.bridge_process import BridgeSetup, finished
from tests.support.consensus_runs import confidence, decision
from tests.support.language_model import KEY, FakeLanguageModel, fake_language_model
from tests.support.ports import free_address
from tests.support.postgres_server import PostgresServer

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


def test_a_message_as_the_platform_publishes_it_is_worked_on_from_standard_input(pipeline: Pipeline) -> None:
    first, _ = pipeline.submitted("--idea", IDEA)
    message = json.dumps({"run_id": first, "run_type": "initial", "priority": "normal", "payload": {}})

    told = finished(pipeline.setup.start("submit", "consensus", "--message", "-", "--wait", given=message), seconds=90)

    assert told.strip() == first


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


def _shown_until_ended(pipeline: Pipeline, run_id: str) -> str:
    message = json.dumps({"run_id": run_id, "run_type": "initial", "priority": "normal", "payload": {}})
    finished(pipeline.setup.start("submit", "consensus", "--message", message, "--wait"), seconds=90)
    return pipeline.setup.call("runs", "show", run_id, "--json")
