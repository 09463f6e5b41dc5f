"""The lab worker's variables under its own names."""

from __future__ import annotations

import pytest

from bridge.errors import ConfigurationError
from bridge.settings import load
from bridge.settings_labs import load_lab_worker

QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/production-ml-worker"


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_without_its_variables_no_lab_platform_is_served() -> None:
    settings = load_lab_worker()

    assert (settings.served, settings.rolls_up) == (False, False)
    assert (settings.aggregation_interval, settings.default_timezone, settings.vitals_batch_size) == (30, "Asia/Kolkata", 20_000)


def test_a_worker_needs_nothing_but_its_old_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        ML_WORKER_SQS_QUEUE_URL=QUEUE,
        POSTGRES_SERVER="db",
        POSTGRES_USER="zivo",
        POSTGRES_PASSWORD="p@ss",
        POSTGRES_DB="health",
    )

    settings = load()
    assert load_lab_worker().served
    assert settings.sqs_queues == (QUEUE,)
    assert (settings.lease_seconds, settings.poll_seconds, settings.concurrency, settings.max_attempts) == (300, 20, 1, 3)
    assert settings.database == "postgresql://zivo:p%40ss@db:5432/health"


def test_a_worker_that_did_not_wait_for_messages_waits_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, ML_WORKER_SQS_QUEUE_URL="https://sqs/1/q", ML_WORKER_WAIT_TIME="0")

    assert load().poll_seconds == 1


def test_what_it_sets_is_taken_over_and_ours_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch, ML_WORKER_SQS_QUEUE_URL=QUEUE, ML_WORKER_VISIBILITY_TIMEOUT="120", ML_WORKER_BATCH_SIZE="5", ML_WORKER_WAIT_TIME="10"
    )
    assert (load().lease_seconds, load().concurrency, load().poll_seconds) == (120, 5, 10)

    given(monkeypatch, BRIDGE_CONCURRENCY="9", BRIDGE_SQS_QUEUES="urgent,normal")
    assert (load().concurrency, load().sqs_queues) == (9, ("urgent", "normal"))


@pytest.mark.parametrize(("mode", "queues", "rolls_up"), [("sqs", (QUEUE,), False), ("both", (QUEUE,), True), ("aggregation", (), True)])
def test_the_mode_says_where_work_comes_from(monkeypatch: pytest.MonkeyPatch, mode: str, queues: tuple[str, ...], rolls_up: bool) -> None:
    given(monkeypatch, ML_WORKER_SQS_QUEUE_URL=QUEUE, ML_WORKER_MODE=mode)

    assert load().sqs_queues == queues
    assert load_lab_worker().rolls_up is rolls_up


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"ML_WORKER_MODE": "all"}, "ML_WORKER_MODE"),
        ({"ML_WORKER_MODE": "sqs"}, "ML_WORKER_SQS_QUEUE_URL"),
        ({"AGGREGATION_COMPAT": "v1"}, "AGGREGATION_COMPAT"),
        ({"AGGREGATION_INTERVAL": "-1"}, "AGGREGATION_INTERVAL.*default"),
        ({"DEFAULT_TIMEZONE": "Kolkata"}, "DEFAULT_TIMEZONE.*no time zone"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str) -> None:
    given(monkeypatch, **variables)

    with pytest.raises(ConfigurationError, match=named):
        load_lab_worker()
