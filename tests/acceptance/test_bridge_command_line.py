"""The bridge's command line, as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.settings import PREFIX, Settings
from bridge.steps import Step
from tests.support.bridge.trial_bridge import Trial, message, open_trial_store, start, trial_settings
from tests.support.forked import Finished, bridge

NO_SERVER = {"BRIDGE_HTTP": "off", "BRIDGE_INFERENCE": "127.0.0.1:1", "BRIDGE_DRAIN_SECONDS": "1"}


@pytest.fixture
def database(tmp_path: Path) -> dict[str, str]:
    """The environment that leads to the database of the trial settings."""
    return {"BRIDGE_DATABASE": str(tmp_path / "bridge.db")}


def _trial_jobs(folder: Path, **requests: dict[str, object]) -> None:
    async def submit() -> None:
        async with open_trial_store(folder) as store:
            for key, request in requests.items():
                await store.submit(message(key, **request))

    asyncio.run(submit())


def _work_until_idle(folder: Path) -> None:
    # No lease runs out over a pause of the machine: each job is done once.
    process = start(Trial(settings=trial_settings(folder, lease_seconds=60.0), log=folder / "bridge.log", until_idle=True))
    process.join(60)
    assert process.exitcode == 0, (folder / "bridge.log").read_text()[-2000:]


def _clear_line(finished: Finished) -> str:
    """What a user's mistake is answered with: one line on standard error, exit status 2, no traceback."""
    assert (2, "", 1) == (finished.status, finished.out, len(finished.err.splitlines())), finished
    return finished.err


def test_with_nothing_set_a_job_is_queued_in_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "labs.json").write_text('[{"name": "Hemoglobin", "value": 13.5, "unit": "g/dL"}]')

    submitted = bridge("submit", "labs", "labs.json", folder=tmp_path)

    assert submitted.status == 0
    assert (tmp_path / ".lamina" / "bridge.db").exists()
    [job] = json.loads(bridge("jobs", "--json", folder=tmp_path).out)
    assert (submitted.out.strip(), "labs", "queued") == (job["key"], job["system"], job["state"])
    assert {"tests": [{"name": "Hemoglobin", "value": "13.5", "unit": "g/dL"}]} == job["request"]


def test_each_document_is_a_job_of_its_own_and_a_slide_takes_its_options(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf", "c.svs"):
        (tmp_path / name).write_bytes(b"content")

    keys = bridge("submit", "document", "a.pdf", "b.pdf", folder=tmp_path).out.split()
    assert bridge("submit", "slide", "c.svs", "--mpp", "0.5", "--analysis", "he_baseline", "--key", "slide-1", folder=tmp_path).status == 0

    assert len(set(keys)) == 2
    shown = json.loads(bridge("jobs", "slide-1", "--json", folder=tmp_path).out)
    assert {"slide_uri": str(tmp_path / "c.svs"), "analysis": "he_baseline", "mpp": 0.5} == shown["request"]


def test_a_password_comes_by_a_pipe_and_is_kept_out_of_the_command_line(tmp_path: Path, database: dict[str, str]) -> None:
    (tmp_path / "a.pdf").write_bytes(b"content")
    command = ("submit", "document", "a.pdf", "--ask-password", "--key", "one")

    def submit(given: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "bridge", *command]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        environment = {**inherited, **database}
        return subprocess.run(program, cwd=tmp_path, env=environment, input=given, text=True, capture_output=True, timeout=60)

    async def password() -> str:
        async with open_trial_store(tmp_path) as store:
            return str((await store.jobs.find("one")).request["password"])

    empty = submit("")
    assert (2, True) == (empty.returncode, "--ask-password found no password" in empty.stderr)
    assert 0 == submit("sekret\n").returncode
    assert asyncio.run(password()) == "sekret"


def test_a_job_submitted_twice_under_one_key_is_one_job(tmp_path: Path) -> None:
    (tmp_path / "labs.json").write_text('{"tests": [{"name": "Glukosa"}]}')
    first, second = (bridge("submit", "labs", "labs.json", "--key", "one", folder=tmp_path) for _ in range(2))

    assert [0, 0] == [first.status, second.status]
    assert "one is known already, as queued" in second.err
    assert len(json.loads(bridge("jobs", "--json", folder=tmp_path).out)) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["submit", "slide", "missing.svs"], "missing.svs does not exist"),
        (["submit", "document", "empty.pdf"], "empty.pdf is empty (0 bytes)"),
        (["submit", "document", "."], ". is not a file"),
        (["submit", "document", "text.json", "--format", "docx"], "input should be 'hocr', 'alto', 'pdf' or 'tsv'"),
        (["submit", "document", "text.json", "--text", "both"], "input should be '', 'ocr', 'layer' or 'auto'"),
        (["submit", "document", "text.json", "empty.pdf", "a.pdf"], "empty.pdf is empty (0 bytes), was it copied whole?; a.pdf does not"),
        (["submit", "document", "text.json", "text.json", "--key", "k"], "--key names one job, and 2 files were given"),
        (["submit", "labs", "text.json"], "text.json: the lab list is not JSON"),
        (["submit", "labs", "https://host/labs.json"], "is a URL"),
        (["submit", "labs", "nameless.json"], "name"),
        (["submit", "slide", "text.json", "--mpp", "-1"], "mpp"),
        (["submit", "slide", "text.json", "--key", " "], "--key is blank"),
        (["submit", "slide", "text.json", "--key", "k" * 201], "key: string should have at most 200 characters"),
        (["jobs", "nothing"], "starts with 'nothing'"),
        (["dead", "replay"], "name one dead letter by its id, or give --all"),
        (["dead", "replay", "7"], "there is no dead letter 7"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_answered_with_one_clear_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    (tmp_path / "empty.pdf").touch()
    (tmp_path / "text.json").write_text("Hemoglobin 13.5")
    (tmp_path / "nameless.json").write_text('[{"value": "13.5"}]')

    assert told in _clear_line(bridge(*arguments, folder=tmp_path))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BRIDGE_CONCURRENCY", "none", "BRIDGE_CONCURRENCY: input should be a valid integer"),
        ("BRIDGE_DATABASE", "mysql://host/db", "BRIDGE_DATABASE: a mysql:// address was given; use a file, postgresql://"),
        ("BRIDGE_HTTP", "203.0.113.1:80", "BRIDGE_HTTP: cannot listen on 203.0.113.1:80"),
        ("BRIDGE_RESULTS", "ftp://host/results", "BRIDGE_RESULTS has the scheme ftp"),
    ],
    ids=lambda value: value if value.startswith("BRIDGE_") and ":" not in value else "",
)
def test_a_wrong_setting_is_answered_with_one_clear_line(tmp_path: Path, name: str, value: str, told: str) -> None:
    assert told in _clear_line(bridge("run", "--until-idle", folder=tmp_path, environment={name: value}))


def test_each_setting_is_listed_in_the_help_of_run(tmp_path: Path) -> None:
    told = bridge("run", "--help", folder=tmp_path, environment={"COLUMNS": "400"}).out
    assert [] == [name for name in Settings.model_fields if f"{PREFIX}{name.upper()} (" not in " ".join(told.split())]


def test_help_and_validation_import_no_database() -> None:
    slow = ("sqlalchemy", "structlog", "pydantic_settings")
    program = f"import sys, bridge.__main__; print([name for name in {slow} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, timeout=60, check=True)
    assert told.stdout.strip() == "[]"


def test_a_database_is_migrated_once(tmp_path: Path) -> None:
    assert [0, 0] == [bridge("migrate", folder=tmp_path).status for _ in range(2)]


def test_jobs_are_shown_as_a_table_and_one_by_one(tmp_path: Path, database: dict[str, str]) -> None:
    _trial_jobs(tmp_path, good={}, bad={"broken": True})
    _work_until_idle(tmp_path)

    table = bridge("jobs", folder=tmp_path, environment=database).out
    failed = bridge("jobs", "--state", "failed", folder=tmp_path, environment=database).out
    one = bridge("jobs", "go", folder=tmp_path, environment=database).out

    assert all(word in table for word in ("good", "succeeded", "bad", "failed", "this can never work"))
    assert "good" not in failed
    assert all(word in one for word in ("good", "succeeded", "fence"))


def test_a_dead_letter_is_listed_and_replayed(tmp_path: Path, database: dict[str, str]) -> None:
    _trial_jobs(tmp_path, bad={"broken": True})
    _work_until_idle(tmp_path)
    [letter] = json.loads(bridge("dead", "list", "--json", folder=tmp_path, environment=database).out)
    assert ("bad", "this can never work", None) == (letter["job_key"], letter["reason"], letter["replayed_at"])

    replayed = bridge("dead", "replay", "--all", folder=tmp_path, environment=database)

    assert (0, f"{letter['id']} bad sent again to jobs\n") == (replayed.status, replayed.out)
    assert json.loads(bridge("jobs", "bad", "--json", folder=tmp_path, environment=database).out)["state"] == "queued"
    assert bridge("dead", "replay", "--all", folder=tmp_path, environment=database).out == ""
    assert "bad" in bridge("dead", "list", folder=tmp_path, environment=database).out


def test_a_dead_letter_is_listed_without_the_password_of_its_document(tmp_path: Path, database: dict[str, str]) -> None:
    _trial_jobs(tmp_path, bad={"broken": True, "password": "sekret"})
    _work_until_idle(tmp_path)
    told = bridge("dead", "list", "--json", folder=tmp_path, environment=database).out
    assert {"broken": True} == json.loads(told)[0]["body"]["request"]


def test_results_are_printed_and_taken(tmp_path: Path, database: dict[str, str]) -> None:
    _trial_jobs(tmp_path, good={}, bad={"broken": True})
    _work_until_idle(tmp_path)

    looked = [json.loads(line) for line in bridge("results", folder=tmp_path, environment=database).out.splitlines()]
    taken = bridge("results", "--take", folder=tmp_path, environment=database).out.splitlines()

    assert {("good", "completed"), ("bad", "failed")} == {(line["job_key"], line["type"]) for line in looked}
    assert {"job": "good", "fence": 1, "computed": 0, "resumed_at": 0} in [line["body"] for line in looked]
    assert len(taken) == 2
    assert bridge("results", folder=tmp_path, environment=database).out == ""


def test_waiting_shows_the_end_and_the_exit_status_tells_success(tmp_path: Path) -> None:
    (tmp_path / "labs.json").write_text('[{"name": "Hemoglobin"}]')
    environment = {"BRIDGE_DATABASE": str(tmp_path / "bridge.db")}
    # Jobs that have ended already: their keys are what is waited for.
    _trial_jobs(tmp_path, good={}, bad={"broken": True})
    _work_until_idle(tmp_path)

    good = bridge("submit", "labs", "labs.json", "--key", "good", "--wait", folder=tmp_path, environment=environment)
    bad = bridge("submit", "labs", "labs.json", "--key", "bad", "--wait", folder=tmp_path, environment=environment)

    assert (0, "good\n") == (good.status, good.out)
    assert (1, "bad\n") == (bad.status, bad.out)
    assert "bad failed: this can never work" in bad.err


def test_a_real_bridge_holds_its_jobs_while_the_server_is_away(tmp_path: Path) -> None:
    (tmp_path / "labs.json").write_text('[{"name": "Hemoglobin"}]')
    environment = {**NO_SERVER, "BRIDGE_MAX_ATTEMPTS": "1"}
    bridge("submit", "labs", "labs.json", "--key", "one", folder=tmp_path, environment=environment)

    stopped = bridge("run", folder=tmp_path, environment=environment, stop_once="OverloadError")

    assert stopped.status == 0, stopped.err[-2000:]
    lines = [json.loads(line) for line in stopped.err.splitlines()]
    assert lines[-1]["event"] == "stopped"
    assert any(line.get("step") == Step.HANDLED and line["outcome"] == "OverloadError" and line["job"] == "one" for line in lines)
    job = json.loads(bridge("jobs", "one", "--json", folder=tmp_path, environment=environment).out)
    assert job["state"] in {"waiting", "queued"}
    assert job["attempts"] == 0
