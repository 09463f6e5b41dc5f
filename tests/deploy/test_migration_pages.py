"""What the migration pages tell to type is taken by the programs, and keeps a trial apart from the platform."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bridge.settings_cards import load_card_worker
from bridge.settings_consensus import load_consensus
from bridge.settings_labs import load_lab_worker
from tests.support.deploy.loaded_settings import bridge_of, server_of

PAGES = Path(__file__).parents[2] / "docs" / "migration"


def exported(page: str, command: str) -> dict[str, str]:
    """The variables of the block of shell on a page that runs a command."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    (block,) = (one for one in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if f"\n{command}" in one)
    words = [word for line in block.splitlines() if line.startswith("export ") for word in shlex.split(line)[1:]]
    return dict(word.split("=", 1) for word in words)


def test_the_slide_workers_trial_has_a_server_that_may_read_and_write_the_bridges_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as context:
        server = server_of(exported("wsi-worker", "inference-server serve"), context)
    bridge = bridge_of(exported("wsi-worker", "bridge run"), monkeypatch)
    assert (server.read_roots, server.write_roots) == ((f"s3://{bridge.wsi_bucket}/wsi/",), (f"s3://{bridge.wsi_bucket}/results/",))
    assert bridge.sqs_queues == ("wsi-jobs-in",), "the platform's own queue is not touched"
    text = (PAGES / "wsi-worker.md").read_text(encoding="utf-8")
    assert f"--listen {bridge.inference}\n" in text


def test_the_card_workers_trial_shares_no_list_table_or_channel_with_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = bridge_of(exported("ocr-worker", "bridge run"), monkeypatch)
    cards = load_card_worker()
    assert cards.served
    assert cards.cf_r2_endpoint
    assert exported("ocr-worker", "bridge run")["REDIS_URL"].endswith("/1"), "another database than the platform's"
    # A channel is one for all databases of a Redis.
    assert bridge.results_queue == cards.ocr_gpu_publish_channel == "filot-trial:results"
    assert not cards.buli2_api_url.startswith("http://localhost:8080"), "the bridge's own address"


def test_the_lab_workers_trial_has_a_queue_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = bridge_of(exported("lab-worker", "bridge run"), monkeypatch)
    assert load_lab_worker().ml_worker_mode == "sqs"
    (queue,) = bridge.sqs_queues
    assert queue.endswith("/trial-ml-worker")
    assert "@copy.internal:5432/zivohealth" in bridge.database


def test_the_aggregations_trial_works_on_a_copy_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = bridge_of(exported("lab-aggregation", "AGGREGATION_COMPAT=zivo bridge rollups run"), monkeypatch)
    assert load_lab_worker().aggregation_interval == 0
    assert bridge.sqs_queues == ()
    assert "@copy.internal:5432/zivohealth" in bridge.database


def test_the_consensus_workers_trial_has_a_subscription_and_a_database_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = bridge_of(exported("consensus-worker", "bridge run"), monkeypatch)
    assert load_consensus().served
    assert bridge.pubsub_subscriptions == ("consensus-trial-sub",)
    assert bridge.pubsub_topic == "consensus-trial"
    assert "europe-west1%3Atrial" in bridge.database
