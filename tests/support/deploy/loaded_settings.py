"""What the programs make of the settings in a container's definition."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bridge import settings as bridge_settings
from bridge.settings import Settings
from bridge.settings_cards import load_card_worker
from bridge.settings_consensus import check_key, load_consensus
from bridge.settings_labs import load_lab_worker
from bridge.transports.checks import check_one_source, check_slide_bucket
from inference_server.settings import Settings as ServerSettings

# In the place of what lies elsewhere.
_SECRETS = {
    "BRIDGE_DATABASE": "postgresql://bridge@db/ledger",
    "DATABASE_URL": "postgresql://cards@db/cards",
    "REDIS_URL": "rediss://redis:6379",
    "CF_R2_ENDPOINT": "https://account.r2.example",
    "BULI2_API_URL": "https://reviews.example",
}


def bridge_of(settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The bridge's settings, its workers' read too. Raises `ConfigurationError` as the bridge would at its start."""
    for name, value in settings.items():
        monkeypatch.setenv(name, _SECRETS.get(name, value))
    loaded = bridge_settings.load()
    check_one_source(loaded)
    check_slide_bucket(loaded)
    check_key(load_consensus())
    for load in (load_card_worker, load_lab_worker):
        load()
    return loaded


def server_of(settings: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> ServerSettings:
    """The inference server's settings. Raises `ConfigurationError`."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return ServerSettings.load()
