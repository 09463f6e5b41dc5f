"""The OCR worker's variables under its own names."""

from __future__ import annotations

import json
import os
from dataclasses import MISSING, fields

import pytest

from bridge import settings_cards
from bridge.errors import ConfigurationError
from bridge.platforms.cards import bucket_of
from bridge.settings import load
from bridge.settings_cards import load_card_worker
from bridge.sources.redis_list import ListKeys

STORE = {"CF_R2_BUCKET_NAME": "documents", "CF_R2_ENDPOINT": "https://account.r2.example"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in os.environ if name.upper().startswith("OCR_GPU_")]
    for name in (*names, "BRIDGE_REDIS_URL", "REDIS_URL", "REDIS_PASSWORD", "NVIDIA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in {**STORE, **variables}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache:6379", "redis://:p%40ss@cache:6379"),
        ("cache:6379", "redis://:p%40ss@cache:6379"),
        ("6380", "redis://:p%40ss@localhost:6380"),
        ("/run/redis.sock", "unix://:p%40ss@/run/redis.sock"),
        ("redis://worker@cache:6379/1", "redis://worker:p%40ss@cache:6379/1"),
        ("rediss://worker:@cache:6379/1", "rediss://worker:p%40ss@cache:6379/1"),
        ("redis://work%40er@cache", "redis://work%40er:p%40ss@cache"),
        ("redis://worker:other@cache", "redis://worker:other@cache"),
    ],
)
def test_a_password_of_its_own_joins_the_address_and_its_user(monkeypatch: pytest.MonkeyPatch, url: str, expected: str) -> None:
    given(monkeypatch, REDIS_URL=url, REDIS_PASSWORD="p@ss")
    assert expected == load().redis_url.get_secret_value()


@pytest.mark.parametrize(
    ("enabled", "devices", "has_gpu"),
    [
        ("true", "", True),
        ("1", "all", True),
        ("true", "0", True),
        ("true", "none", False),
        ("true", "VOID", False),
        ("false", "all", False),
    ],
)
def test_a_container_that_is_kept_from_gpus_has_none(monkeypatch: pytest.MonkeyPatch, enabled: str, devices: str, has_gpu: bool) -> None:
    given(monkeypatch, OCR_GPU_ENABLED=enabled, NVIDIA_VISIBLE_DEVICES=devices)
    assert has_gpu == load_card_worker().has_gpu


@pytest.mark.parametrize(
    ("enabled", "devices", "named"), [("true", "none", "NVIDIA_VISIBLE_DEVICES is none"), ("", "", "OCR_GPU_ENABLED is off")]
)
def test_without_a_gpu_and_without_a_fallback_nothing_starts(
    monkeypatch: pytest.MonkeyPatch, enabled: str, devices: str, named: str
) -> None:
    given(monkeypatch, OCR_GPU_ENABLED=enabled, NVIDIA_VISIBLE_DEVICES=devices, OCR_GPU_AUTOFALLBACK="false")
    with pytest.raises(ConfigurationError, match=f"{named}.*OCR_GPU_AUTOFALLBACK"):
        load_card_worker()


def test_both_lists_share_locks_and_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, OCR_GPU_QUEUE_KEY="own:queue")
    settings = load()
    gpu, cpu = (settings.redis_keys[queue] for queue in settings.redis_queues)
    assert (gpu["locks"], gpu["correlation"]) == (cpu["locks"], cpu["correlation"])
    assert ("filot:ocr:queue", "own:queue") == (gpu["twin"], cpu["twin"])
    assert "filot:ocr:gpu:lock:" in json.dumps(gpu), "as the old worker names them"


def test_a_gpu_list_that_is_the_cpus_is_one_list_with_the_gpus_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where somebody has pointed the worker to the list that the API fills."""
    given(monkeypatch, OCR_GPU_QUEUE_KEY="filot:ocr:queue", OCR_GPU_PROCESSING_KEY="own:processing")
    settings = load()
    assert ("filot:ocr:queue",) == settings.redis_queues
    keys = settings.redis_keys["filot:ocr:queue"]
    assert ("own:processing", "filot:ocr:delayed", None) == (keys["processing"], keys["delayed"], keys.get("twin"))


def test_unset_variables_are_the_old_workers_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch)
    settings = load()
    assert (2, 3, 1.0) == (settings.concurrency, settings.max_attempts, settings.poll_seconds)
    assert (300.0, 60.0, 600.0) == (settings.redis_adopt_seconds, settings.redis_look_seconds, settings.redis_lock_seconds)


def test_variables_of_time_and_number_are_read_in_their_own_units(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {
        "OCR_GPU_POLL_INTERVAL": "500",
        "OCR_GPU_STUCK_TIMEOUT": "90000",
        "OCR_GPU_REAPER_INTERVAL": "15000",
        "OCR_GPU_LOCK_TTL": "120",
    }
    given(monkeypatch, OCR_GPU_CONCURRENCY="4", OCR_GPU_MAX_RETRIES="5", **times)
    settings = load()
    assert (4, 5, 0.5) == (settings.concurrency, settings.max_attempts, settings.poll_seconds)
    assert (90.0, 15.0, 120.0) == (settings.redis_adopt_seconds, settings.redis_look_seconds, settings.redis_lock_seconds)


def test_a_poll_interval_is_no_longer_than_a_stop_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, OCR_GPU_POLL_INTERVAL="3600000")
    assert 60.0 == load().poll_seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("OCR_GPU_CONCURRENCY", "OCR_GPU_MAX_RETRIES") for value in ("two", "0", "-1", "1.5", "inf")),
        *(
            (name, value)
            for name in ("OCR_GPU_POLL_INTERVAL", "OCR_GPU_STUCK_TIMEOUT", "OCR_GPU_REAPER_INTERVAL", "OCR_GPU_LOCK_TTL")
            for value in ("1s", "0", "nan", "inf")
        ),
    ],
)
def test_a_value_that_is_wrong_names_the_variable_that_was_set(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    given(monkeypatch, **{name: value})
    with pytest.raises(ConfigurationError, match=f"^{name}: .*the default"):
        load()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("OCR_GPU_QUEUE_KEY", "filot:ocr:gpu:processing"),
        ("OCR_GPU_QUEUE_KEY", "filot:ocr:gpu:correlation"),
        ("OCR_GPU_PROCESSING_KEY", "filot:ocr:gpu:queue"),
        ("OCR_GPU_PROCESSING_KEY", "filot:ocr:processing"),
        ("OCR_GPU_ATTEMPTS_KEY", "filot:ocr:gpu:processing:timestamps"),
        ("OCR_GPU_ATTEMPTS_KEY", "filot:ocr:attempts"),
        ("OCR_GPU_QUEUE_KEY", "filot:ocr:queue:holders"),
        ("OCR_GPU_QUEUE_KEY", "filot:buli2:retry_queue"),
        ("OCR_GPU_QUEUE_KEY", "filot:ocr:gpu:lock:1"),
        ("OCR_GPU_PROCESSING_KEY", "filot:ocr:gpu:queue:leases"),
        ("OCR_GPU_ATTEMPTS_KEY", "filot:buli2:retry_queue:dead"),
    ],
)
def test_a_key_that_is_something_else_too_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, key: str) -> None:
    given(monkeypatch, **{name: key})
    with pytest.raises(ConfigurationError, match=f"^{name}: '{key}' is the key of something else too"):
        load()


@pytest.mark.parametrize("key", [" ", "own:queue ", "own,queue"])
def test_a_list_whose_name_settings_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Else another list would be served in its place, or none."""
    given(monkeypatch, OCR_GPU_QUEUE_KEY=key)
    with pytest.raises(ConfigurationError, match=f"^OCR_GPU_QUEUE_KEY: '{key}' has a comma, or begins or ends with a space"):
        load()


def test_all_keys_beside_a_list_are_known_to_the_settings() -> None:
    assert [field.name for field in fields(ListKeys) if field.default is MISSING and field.name != "queue"] == list(settings_cards._BESIDE)


def test_one_list_may_have_the_cpus_keys_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"OCR_GPU_QUEUE_KEY": "queue", "OCR_GPU_PROCESSING_KEY": "processing", "OCR_GPU_ATTEMPTS_KEY": "attempts"}
    given(monkeypatch, **{name: f"filot:ocr:{key}" for name, key in names.items()})
    assert ("filot:ocr:queue",) == load().redis_queues


@pytest.mark.parametrize(("told", "falls_back"), [("false", False), ("False", True), ("0", True), ("no", True), ("", True), ("true", True)])
def test_only_false_itself_turns_the_fallback_off(monkeypatch: pytest.MonkeyPatch, told: str, falls_back: bool) -> None:
    given(monkeypatch, OCR_GPU_ENABLED="true", OCR_GPU_AUTOFALLBACK=told)
    assert falls_back is load_card_worker().ocr_gpu_autofallback


@pytest.mark.parametrize(("told", "enabled"), [("true", True), ("1", True), ("TRUE", False), ("yes", False), ("", False)])
def test_true_or_1_turns_the_gpu_on(monkeypatch: pytest.MonkeyPatch, told: str, enabled: bool) -> None:
    given(monkeypatch, OCR_GPU_ENABLED=told)
    assert enabled is load_card_worker().ocr_gpu_enabled


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in ("CF_R2_ENDPOINT", "BULI2_API_URL")
            for value in ("account.r2.example", "ftp://r2.example", "https://")
        ),
        ("CF_R2_ENDPOINT", "https://account.r2.example/documents"),
    ],
)
def test_an_address_that_is_none_is_refused_before_a_document_is_read(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    given(monkeypatch, **{name: value})
    with pytest.raises(ConfigurationError, match=f"^{name}"):
        load_card_worker()


def test_white_space_around_an_address_is_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, CF_R2_ENDPOINT=" https://account.r2.example/ ")
    assert "https://account.r2.example/" == load_card_worker().cf_r2_endpoint


def test_the_end_of_a_line_is_no_part_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("CF_R2_ACCESS_KEY_ID", "CF_R2_SECRET_ACCESS_KEY", "BULI2_API_KEY")
    given(monkeypatch, **dict.fromkeys(names, " key\n"))
    cards = load_card_worker()
    assert ["key"] * 3 == [getattr(cards, name.lower()).get_secret_value() for name in names]


@pytest.mark.parametrize("given_one", ["CF_R2_ACCESS_KEY_ID", "CF_R2_SECRET_ACCESS_KEY", ""])
def test_a_store_without_keys_is_refused_before_a_document_is_read(monkeypatch: pytest.MonkeyPatch, given_one: str) -> None:
    names = {"CF_R2_ACCESS_KEY_ID", "CF_R2_SECRET_ACCESS_KEY"}
    given(monkeypatch, **{name: "x" if name == given_one else "" for name in names})
    with pytest.raises(ConfigurationError) as refused:
        bucket_of(load_card_worker())
    assert names - {given_one} == {name for name in names if name in str(refused.value)}


def test_each_reader_has_a_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, BRIDGE_CARD_GPU_SECONDS="12.5")
    settings = load_card_worker()
    times = (settings.bridge_card_gpu_seconds, settings.bridge_card_cpu_seconds, settings.bridge_card_tesseract_seconds)
    assert (12.5, 300.0, 120.0) == times


@pytest.mark.parametrize("name", ["BRIDGE_CARD_GPU_SECONDS", "BRIDGE_CARD_CPU_SECONDS", "BRIDGE_CARD_TESSERACT_SECONDS"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "3601", "60s"])
def test_a_time_out_of_range_is_refused_at_the_start_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    given(monkeypatch, **{name: value})
    with pytest.raises(ConfigurationError, match=f"^{name}: .*the default"):
        load_card_worker()
