"""The consensus worker's variables under its own names."""

from __future__ import annotations

import pytest

from bridge.errors import ConfigurationError
from bridge.settings import load
from bridge.settings_consensus import check_key, load_consensus

PUBSUB = {"OPENAI_API_KEY": "sk-real-0123456789", "PUBSUB_PROJECT_ID": "ours"}
LOCATIONS = [
    ({"DB_HOST": "db", "DB_PASSWORD": "p@ss/word"}, "postgresql://postgres:p%40ss%2Fword@db:5432/consensus_engine"),
    ({**PUBSUB, "DB_PASSWORD": "x"}, "postgresql://postgres:x@localhost:5432/consensus_engine"),
    ({"DB_NAME": "runs", "DB_USER": "ann", "DB_PORT": "5433"}, "postgresql://ann@localhost:5433/runs"),
    (
        {"DB_HOST": "/cloudsql/p:r:i", "DB_USER": "ann"},
        "postgresql://ann@/consensus_engine?host=%2Fcloudsql%2Fp%3Ar%3Ai&port=5432",
    ),
    (
        {
            "USE_CLOUD_SQL_CONNECTOR": "true",
            "DB_INSTANCE_CONNECTION_NAME": "p:r:i",
            "DB_USER": "ann@p.iam",
            "DB_IAM_AUTH": "true",
            "DB_PASSWORD": "x",
        },
        "cloudsql://ann%40p.iam@p:r:i/consensus_engine",
    ),
    (
        {"USE_CLOUD_SQL_CONNECTOR": "true", "DB_INSTANCE_CONNECTION_NAME": "p:r:i", "DB_PASSWORD": "x"},
        "cloudsql://postgres:x@p:r:i/consensus_engine",
    ),
]


def given(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_the_defaults_are_the_workers_own() -> None:
    settings = load_consensus()

    assert (settings.expand_model, settings.expand_temperature) == ("gpt-5.1", 0.7)
    assert (settings.review_model, settings.review_temperature) == ("gpt-5.1", 0.2)
    assert (settings.max_retries_per_persona, settings.retry_initial_backoff_seconds, settings.retry_backoff_multiplier) == (3, 1.0, 2.0)
    assert (settings.worker_step_timeout_seconds, settings.worker_job_timeout_seconds) == (300, 1800)
    assert settings.persona_template_version == "1.0.0"
    assert not settings.served


def test_a_worker_of_the_pipeline_needs_nothing_but_its_old_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {**PUBSUB, "DB_HOST": "db", "DB_POOL_SIZE": "3", "WORKER_MAX_CONCURRENCY": "4"})

    settings = load()
    assert load_consensus().served
    assert settings.pubsub_subscriptions == ("consensus-engine-jobs-sub",)
    assert (settings.pubsub_topic, settings.pubsub_project) == ("consensus-engine-jobs", "ours")
    assert (settings.database_pool_size, settings.concurrency) == (3, 4)
    assert settings.database == "postgresql://postgres@db:5432/consensus_engine"


def test_concurrency_topic_subscription_and_the_emulators_project_have_the_workers_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"OPENAI_API_KEY": "sk-real-0123456789", "PUBSUB_EMULATOR_HOST": "127.0.0.1:8085", "PUBSUB_SUBSCRIPTION": "mine"})

    settings = load()
    assert settings.pubsub_subscriptions == ("mine",)
    assert (settings.pubsub_project, settings.concurrency) == ("emulator-project", 10)


def test_with_the_mock_jobs_come_from_the_embedded_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {**PUBSUB, "PUBSUB_USE_MOCK": "true"})

    assert load_consensus().served
    assert load().pubsub_subscriptions == ()


@pytest.mark.parametrize("variable", ["BRIDGE_PUBSUB_PUSH_AUDIENCE", "BRIDGE_SQS_QUEUES", "BRIDGE_REDIS_QUEUES"])
def test_no_subscription_is_implied_where_jobs_come_from_elsewhere(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    given(monkeypatch, {**PUBSUB, variable: "somewhere"})

    assert load().pubsub_subscriptions == ()


@pytest.mark.parametrize(("variables", "location"), LOCATIONS)
def test_the_database_is_found_under_the_workers_names(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], location: str) -> None:
    given(monkeypatch, variables)

    assert load().database == location


def test_an_account_alone_names_no_database_where_no_runs_are_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load().database
    given(monkeypatch, {"DB_USER": "ann", "DB_PASSWORD": "x"})

    assert load().database == before


def test_our_own_variables_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    given(
        monkeypatch,
        {**PUBSUB, "DB_HOST": "db", "BRIDGE_DATABASE": "ours.db", "BRIDGE_PUBSUB_SUBSCRIPTIONS": "a,b", "BRIDGE_CONCURRENCY": "2"},
    )

    settings = load()
    assert (settings.database, settings.pubsub_subscriptions, settings.concurrency) == ("ours.db", ("a", "b"), 2)


def test_the_end_of_a_line_is_no_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"OPENAI_API_KEY": "sk-real-0123456789\n"})

    assert load_consensus().openai_api_key.get_secret_value() == "sk-real-0123456789"


def test_a_key_alone_starts_no_pipeline_and_it_can_be_switched(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"OPENAI_API_KEY": "sk-real-0123456789"})
    assert not load_consensus().served
    monkeypatch.setenv("BRIDGE_CONSENSUS", "on")
    assert load_consensus().served
    given(monkeypatch, {**PUBSUB, "BRIDGE_CONSENSUS": "off"})
    assert not load_consensus().served


@pytest.mark.parametrize("key", ["", "\n"])
def test_a_worker_whose_key_is_missing_starts_not_idle(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"PUBSUB_PROJECT_ID": "ours", "PUBSUB_SUBSCRIPTION": "runs", "OPENAI_API_KEY": key})
    with pytest.raises(ConfigurationError, match=r"OPENAI_API_KEY is not set.*BRIDGE_CONSENSUS=off"):
        check_key(load_consensus())


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"BRIDGE_CONSENSUS": "off"},
        {"BRIDGE_CONSENSUS": "off", "OPENAI_API_KEY": "sk-real-0123456789"},
        {"BRIDGE_SQS_QUEUES": "labs"},
        {"BRIDGE_REDIS_QUEUES": "cards"},
        {"BRIDGE_PUBSUB_PUSH_AUDIENCE": "https://bridge"},
        {"BRIDGE_PUBSUB_SUBSCRIPTIONS": "documents"},
        {"PUBSUB_USE_MOCK": "true"},
    ],
    ids=lambda variables: "-".join(variables),
)
def test_a_bridge_whose_jobs_come_from_elsewhere_needs_no_key(elsewhere: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, {"PUBSUB_PROJECT_ID": "ours", "PUBSUB_SUBSCRIPTION": "runs", **elsewhere})
    consensus = load_consensus()
    check_key(consensus)
    assert not consensus.served
    assert "runs" not in load().pubsub_subscriptions


def test_whoever_asks_for_a_run_needs_no_key_and_sends_to_the_workers_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the embedded queue the run would lie for ever."""
    given(monkeypatch, {"PUBSUB_PROJECT_ID": "ours", "PUBSUB_SUBSCRIPTION": "runs", "PUBSUB_TOPIC": "asked", "DB_HOST": "db"})
    load_consensus()
    assert (load().pubsub_subscriptions, load().pubsub_topic) == (("runs",), "asked")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"OPENAI_API_KEY": "your-api-key-here"}, "OPENAI_API_KEY.*placeholder"),
        ({"MAX_RETRIES_PER_PERSONA": "11"}, "MAX_RETRIES_PER_PERSONA.*default"),
        ({"REVIEW_TEMPERATURE": "3"}, "REVIEW_TEMPERATURE"),
        ({"WORKER_STEP_TIMEOUT_SECONDS": "5"}, "WORKER_STEP_TIMEOUT_SECONDS"),
        ({"BRIDGE_LLM_RUN_COST": "1"}, "BRIDGE_LLM_PRICES"),
        ({"BRIDGE_LLM_PRICES": "cheap"}, "BRIDGE_LLM_PRICES"),
    ],
)
def test_a_wrong_value_is_named_and_no_secret_shown(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str) -> None:
    given(monkeypatch, variables)

    with pytest.raises(ConfigurationError, match=named) as refused:
        load_consensus()
    assert "your-api-key-here" not in str(refused.value)
