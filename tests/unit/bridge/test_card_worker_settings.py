"""The OCR worker's variables under its own names."""

from __future__ import annotations

import json

import pytest

from bridge.errors import ConfigurationError
from bridge.settings import load
from bridge.settings_cards import load_card_worker

STORE = {"CF_R2_BUCKET_NAME": "documents", "CF_R2_ENDPOINT": "https://account.r2.example"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BRIDGE_REDIS_URL", "REDIS_URL", "REDIS_PASSWORD", "NVIDIA_VISIBLE_DEVICES", "OCR_GPU_ENABLED", "OCR_GPU_AUTOFALLBACK"):
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in {**STORE, **variables}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache:6379", "redis://:p%40ss@cache:6379"),
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
