"""What the migration pages tell to type is taken by the programs, and keeps a trial apart from the platform."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from bridge.database.platforms import create_tables
from bridge.settings import load
from bridge.settings_cards import load_card_worker
from bridge.settings_consensus import load_consensus
from bridge.settings_labs import load_lab_worker
from bridge.store import open_store
from tests.support.deploy.loaded_settings import bridge_of, server_of

PAGES = Path(__file__).parents[2] / "docs" / "migration"


def exported(page: str, command: str) -> dict[str, str]:
    """The variables of the block of shell on a page that runs a command."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    (block,) = (one for one in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if f"\n{command}" in one)
    words = [word for line in block.splitlines() if line.startswith("export ") for word in shlex.split(line)[1:]]
    return dict(word.split("=", 1) for word in words)


def statements(page: str, section: str) -> list[str]:
    """What a section has typed into the database."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"\n## {section}\n(.*?)(?=\n## |\Z)", text, re.DOTALL)
    return [line.strip() for block in re.findall(r"```sql\n(.*?)```", found, re.DOTALL) for line in block.splitlines() if line.strip()]


def with_tables(database: str, platform: str) -> psycopg.Connection[tuple[object, ...]]:
    """A database as `bridge migrate --with` leaves it."""

    async def made() -> None:
        async with open_store(load(database=database)) as store:
            await create_tables(store.database, platform)

    asyncio.run(made())
    return psycopg.connect(database, autocommit=True)


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


def test_the_document_of_the_card_workers_trial_is_the_one_that_it_enqueues(new_postgres_database: Callable[[], str]) -> None:
    (insert,) = statements("ocr-worker", "Try it beside the old one")
    with with_tables(new_postgres_database(), "documents") as connection:
        connection.execute(insert.encode())
        found = connection.execute("SELECT CAST(id AS text), CAST(status AS text), file_url IS NOT NULL FROM documents").fetchall()
    (enqueued,) = re.findall(r"^bridge documents enqueue (\S+)$", (PAGES / "ocr-worker.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [(enqueued, "uploaded", True)] == found


def test_the_old_consensus_worker_can_begin_anew_what_a_bridge_gave_back(new_postgres_database: Callable[[], str]) -> None:
    proposal = "INSERT INTO proposal_versions (id, run_id, expanded_proposal_json, persona_template_version) VALUES (%s, %s, '{}', '1.0.0')"
    columns = "id, run_id, persona_id, persona_name, review_json, confidence_score, blocking_issues_present, security_concerns_present"
    review = (
        f"INSERT INTO persona_reviews ({columns}, prompt_parameters_json, created_at)"
        " VALUES (%s, %s, 'critic', 'Critic', '{}', 0.5, false, false, '{}', now())"
    ).encode()
    run = (
        "INSERT INTO runs (id, status, input_idea, run_type, model, temperature, parameters_json)"
        " VALUES (%s, %s, 'An idea', 'INITIAL', 'gpt-5.1', 0.7, '{}')"
    )
    states = {uuid4(): state for state in ("QUEUED", "RUNNING", "COMPLETED", "FAILED")}
    with with_tables(new_postgres_database(), "consensus") as connection:
        for key, state in states.items():
            connection.execute(run, (key, state))
            connection.execute(proposal, (uuid4(), key))
            connection.execute(review, (uuid4(), key))
        for statement in statements("consensus-worker", "Go back"):
            connection.execute(statement.encode())
        kept = {
            table: connection.execute(f"SELECT run_id FROM {table}".encode()).fetchall()
            for table in ("proposal_versions", "persona_reviews")
        }
        for key, state in states.items():
            if state in {"QUEUED", "RUNNING"}:
                # As the old worker does, which looks for no earlier one.
                connection.execute(proposal, (uuid4(), key))
    for table, rows in kept.items():
        assert {"COMPLETED", "FAILED"} == {states[row[0]] for row in rows}, table  # type: ignore[index]
