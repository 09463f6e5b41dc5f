from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from bridge.settings import Settings, load
from bridge.settings_labs import load_lab_worker


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BRIDGE_{name.upper()}", raising=False)


def test_nothing_has_to_be_set() -> None:
    settings = load()

    assert (".lamina/bridge.db", "127.0.0.1:8001", "127.0.0.1:8080") == (settings.database, settings.inference, settings.http)


def test_the_environment_is_read_and_an_option_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_CONCURRENCY", "7")
    monkeypatch.setenv("BRIDGE_HTTP", "0.0.0.0:9000")
    monkeypatch.setenv("BRIDGE_READ_ROOTS", "/data, /more")

    settings = load(http="off", concurrency=None)

    assert (7, "", (Path("/data"), Path("/more"))) == (settings.concurrency, settings.http, settings.read_roots)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("CONCURRENCY", "0", "greater than or equal to 1"),
        ("CONCURRENCY", "many", "valid integer"),
        ("INFERENCE", "localhost", "not host:port"),
        ("HTTP", "127.0.0.1:99999", "not host:port"),
        ("LEASE_SECONDS", "0", "greater than or equal to 0.2"),
        ("BACKOFF_SECONDS", "nan", "finite number"),
        ("POLL_SECONDS", "61", "less than or equal to 60"),
        ("LOG_LEVEL", "loud", "'debug', 'info'"),
        ("QUEUE", "", "at least 1 character"),
    ],
)
def test_a_bad_value_is_told_with_its_variable_and_the_fix(monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    monkeypatch.setenv(f"BRIDGE_{name}", value)

    with pytest.raises(ConfigurationError, match=f"BRIDGE_{name}: .*{told}.*; set it right, or unset it for the default"):
        load()


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("BRIDGE_CONCURRENCY", "the default (2)"),
        ("BRIDGE_REDIS_LOOK_SECONDS", "the default (0.0)"),
        ("BRIDGE_WSI_MPP", "the default"),
        ("ML_WORKER_MODE", "the default"),
        ("AGGREGATION_COMPAT", "the default"),
        ("VITALS_BATCH_SIZE", "the default (20000)"),
    ],
)
def test_a_default_is_told_where_there_is_one(monkeypatch: pytest.MonkeyPatch, name: str, end: str) -> None:
    monkeypatch.setenv(name, "many")

    with pytest.raises(ConfigurationError) as told:
        load() if name.startswith("BRIDGE_") else load_lab_worker()

    assert str(told.value).endswith(f"unset it for {end}")


def test_a_bad_value_of_the_lab_worker_is_told_with_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_WORKER_SQS_QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/1/labs")
    monkeypatch.setenv("ML_WORKER_WAIT_TIME", "90")

    with pytest.raises(ConfigurationError, match=r"BRIDGE_POLL_SECONDS: .*less than or equal to 60.*; ML_WORKER_WAIT_TIME set it too"):
        load()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().queue = "other"  # type: ignore[misc]


def test_several_inference_servers_may_be_named() -> None:
    assert "gpu-1:8001,gpu-2:8001" == load(inference="gpu-1:8001, gpu-2:8001").inference
    with pytest.raises(ConfigurationError, match=r"BRIDGE_INFERENCE: 'gpu-2' is not host:port"):
        load(inference="gpu-1:8001,gpu-2")
