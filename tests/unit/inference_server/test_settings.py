from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from inference_server.errors import ConfigurationError
from inference_server.settings import PREFIX, Settings

# From the one that counts the most.
OTLP = ("INFERENCE_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    for name in (*OTLP, "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


def test_without_settings_the_server_serves_this_machine_alone() -> None:
    settings = Settings.load()
    assert (settings.listen, settings.http, settings.models) == ("127.0.0.1:8001", "127.0.0.1:8002", Path(".lamina/models"))
    assert (settings.read_roots, settings.write_roots, settings.max_message_bytes) == ((".",), ("results",), 268_435_456)


def test_a_flag_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_LISTEN", "0.0.0.0:9000")
    assert (Settings.load(listen=None).listen, Settings.load(listen="[::1]:0").listen) == ("0.0.0.0:9000", "[::1]:0")


def test_roots_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_READ_ROOTS", "/slides, s3://bucket/a/ ,")
    assert Settings.load().read_roots == ("/slides", "s3://bucket/a/")


def test_shares_of_clients_are_read_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_CLIENT_WEIGHTS", "ocr=2, slides=0.5")
    assert {"ocr": 2.0, "slides": 0.5} == Settings.load().client_weights


def test_opentelemetrys_own_variables_say_where_traces_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().otlp_endpoint is None
    for name in reversed(OTLP):
        monkeypatch.setenv(name, f"http://{name.lower().replace('_', '-')}:4317")
        assert Settings.load().otlp_endpoint == f"http://{name.lower().replace('_', '-')}:4317"
    assert Settings.load(otlp_endpoint="collector:4317").otlp_endpoint == "collector:4317"
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert Settings.load().otlp_disabled


def test_a_bad_value_of_another_programs_variable_is_told_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "not a place")
    with pytest.raises(ConfigurationError, match=r"INFERENCE_OTLP_ENDPOINT \(--otlp-endpoint\): .*OTEL_EXPORTER_OTLP_ENDPOINT"):
        Settings.load()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings.load().listen = "0.0.0.0:1"  # type: ignore[misc]


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_THREADS", "")
    assert Settings.load().threads == 0


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("LISTEN", "8001", "expected host:port"),
        ("LISTEN", "127.0.0.1:99999", "expected host:port"),
        ("ENGINE", "tensorflow", "expected auto, onnxruntime or openvino"),
        ("READ_ROOTS", ",", "expected at least one folder"),
        ("MAX_MESSAGE_BYTES", "many", "valid integer"),
        ("MAX_MESSAGE_BYTES", "1", "greater than or equal to 65536"),
        ("GRACE_SECONDS", "-1", "greater than or equal to 0"),
        ("CLIENT_WEIGHTS", "ocr", "expected names and shares above 0, such as ocr=2,slides=1"),
        ("CLIENT_WEIGHTS", "ocr=0", "expected names and shares above 0"),
        ("FALLBACK", "gpu", "'none' or 'cpu'"),
        ("OTLP_ENDPOINT", "ftp://collector", "expected the place of a collector's OTLP over gRPC"),
        ("TRACE_RATE", "-1", "greater than or equal to 0"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_bad_value_names_the_variable_the_flag_and_the_fix(monkeypatch: pytest.MonkeyPatch, name: str, value: str, fix: str) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    message = str(caught.value)
    assert message.startswith(f"{PREFIX}{name} (--{name.lower().replace('_', '-')}): ")
    assert fix in message
    assert "It means: " in message


def test_each_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
