"""Every figure that the documents name, scraped from a real bridge that has done a bit of everything."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from bridge.aws.names import Names
from bridge.database.port import Database
from bridge.http.figures import Figures
from bridge.http.metrics import Metrics
from bridge.ledger.port import Backlog
from bridge.sources.port import QueueLevel
from tests.support.bridge.answering_bridge import answering_bridge, figures_of
from tests.support.bridge.trial_bridge import message
from tests.support.servers.ministack import Ministack
from tests.support.servers.sqs import aws_of, fresh_queue

DOCUMENT = (Path(__file__).parents[3] / "docs" / "bridge.md").read_text(encoding="utf-8")
Scraped = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def documented() -> list[str]:
    """The names in the table of figures."""
    rows = re.findall(r"^\| (`bridge_[^|]+)\|", DOCUMENT, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(bridge_[a-z_]+)`", row)]


async def _scraped(address: str) -> Scraped:
    found = {}
    for family in text_string_to_metric_families(await figures_of(address)):
        for sample in family.samples:
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def _value(scraped: Scraped, name: str, **labels: str) -> float:
    return scraped[name, frozenset(labels.items())]


async def _until_scraped(address: str, fits: Any) -> Scraped:
    """Scrape until what is told fits."""
    scraped: Scraped = {}
    async with asyncio.timeout(60):
        while True:
            try:
                scraped = await _scraped(address)
                if fits(scraped):
                    return scraped
            except (urllib.error.URLError, KeyError):
                pass
            await asyncio.sleep(0.05)


async def _take_over(database: Database, key: str) -> None:
    """As another worker does."""
    await database.change(text("UPDATE jobs SET fence = fence + 1 WHERE key = :key"), {"key": key})


async def test_every_documented_figure_is_told_with_a_plausible_value(tmp_path: Path) -> None:
    async with answering_bridge(tmp_path, concurrency=1, lease_seconds=15.0) as (address, store):
        await store.submit(message("good", seconds=0.2, fallback="spare"))
        await store.submit(message("bad", broken=True))
        await store.submit(message("flaky", transient_failures=1))
        await store.queue.send("poison", b"?")
        await _until_scraped(address, lambda scraped: _value(scraped, "bridge_jobs_total", system="trial", outcome="succeeded") == 2)
        await store.submit(message("stolen", seconds=60))
        await store.submit(message("waiting"))
        await _until_scraped(address, lambda scraped: _value(scraped, "bridge_lease_margin_seconds", lease="ledger") > 0)
        await asyncio.sleep(0.3)
        scraped = await _scraped(address)
        await _take_over(store.database, "stolen")
        await _until_scraped(address, lambda scraped: _value(scraped, "bridge_fenced_writes_total", system="trial") == 1)

    told = {re.sub("_(bucket|sum|count|created)$", "", name) for name, _ in scraped}
    assert ["bridge_queue_dead_messages"] == [name for name in documented() if name not in told], "which SQS alone tells"
    assert len(documented()) >= 14
    queue = {"source": "local", "queue": "jobs"}
    assert (1, 1, 0) == tuple(_value(scraped, "bridge_queue_messages", **queue, state=each) for each in ("waiting", "leased", "delayed"))
    assert 0.25 < _value(scraped, "bridge_queue_oldest_seconds", **queue) < 30
    assert (1, 1) == (_value(scraped, "bridge_queue_reachable", source="local"), _value(scraped, "bridge_jobs_in_flight"))
    assert 6 == _value(scraped, "bridge_deliveries_total", source="local")
    assert 1 == _value(scraped, "bridge_redeliveries_total", source="local"), "the flaky job's message"
    assert 1 == _value(scraped, "bridge_jobs_total", system="trial", outcome="failed")
    assert 1 == _value(scraped, "bridge_jobs_total", system="unknown", outcome="poison")
    tries = {"transient": "TransientError", "permanent": "PermanentError", "succeeded": "succeeded"}
    counted = {each: _value(scraped, "bridge_tries_total", system="trial", **{"class": each}, outcome=name) for each, name in tries.items()}
    assert {"transient": 1, "permanent": 1, "succeeded": 2} == counted
    assert 1 == _value(scraped, "bridge_fallbacks_total", system="trial", by="spare")
    assert 2 == _value(scraped, "bridge_job_seconds_count", system="trial", outcome="succeeded")
    assert 0.2 <= _value(scraped, "bridge_job_seconds_sum", system="trial", outcome="succeeded") < 30
    assert 4 <= _value(scraped, "bridge_step_seconds_count", system="trial", step="handled")
    for lease in ("ledger", "queue"):
        assert 0 < _value(scraped, "bridge_lease_margin_seconds", lease=lease) <= 15
    assert 0 == _value(scraped, "bridge_fenced_writes_total", system="trial")
    assert 2 == _value(scraped, "bridge_dead_letters"), "the bad job's message, and what cannot be read"
    assert (3, 1) == tuple(_value(scraped, "bridge_escalations", state=each) for each in ("waiting", "dead"))
    assert 0 <= _value(scraped, "bridge_silence_seconds") < 30
    assert 0 <= time.time() - _value(scraped, "process_start_time_seconds") < 3600
    assert (0, 0) == (_value(scraped, "bridge_outbox_messages"), _value(scraped, "bridge_outbox_oldest_seconds"))


async def test_the_figures_of_sqs_are_its_own(tmp_path: Path, ministack: Ministack) -> None:
    async with aws_of(ministack) as aws:
        queue = await fresh_queue(aws)
    settings = {"sqs_queues": (queue,), "aws_endpoint": ministack.endpoint, "concurrency": 1, "lease_seconds": 30.0}
    async with answering_bridge(tmp_path, **settings) as (address, store):
        goes_on = tmp_path / "long goes on"
        goes_on.touch()
        await store.submit(message("long", while_exists=str(goes_on)))
        await store.submit(message("waiting"))
        labels = {"source": "sqs", "queue": queue}

        def both(scraped: Scraped) -> bool:
            return (1, 1) == tuple(_value(scraped, "bridge_queue_messages", **labels, state=state) for state in ("waiting", "leased"))

        scraped = await _until_scraped(address, both)
        oldest = _value(scraped, "bridge_queue_oldest_seconds", **labels)
        goes_on.unlink()

    assert not math.isnan(oldest)
    assert 0 <= oldest < 60


async def test_messages_that_sqs_gave_up_are_told(tmp_path: Path, ministack: Ministack) -> None:
    async with aws_of(ministack) as aws:
        dead = await fresh_queue(aws)
        policy = json.dumps({"deadLetterTargetArn": await Names(aws).arn("sqs", dead), "maxReceiveCount": 3})
        queue = await fresh_queue(aws)
        url = await Names(aws).queue_url(queue)
        await aws.call("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"RedrivePolicy": policy})
        for number in range(2):
            await aws.call("sqs", "send_message", QueueUrl=await Names(aws).queue_url(dead), MessageBody=str(number))
    settings = {"sqs_queues": (queue,), "aws_endpoint": ministack.endpoint, "concurrency": 1, "lease_seconds": 30.0}
    async with answering_bridge(tmp_path, **settings) as (address, _):
        scraped = await _until_scraped(
            address, lambda scraped: _value(scraped, "bridge_queue_dead_messages", source="sqs", queue=queue) >= 0
        )

    assert 2 == _value(scraped, "bridge_queue_dead_messages", source="sqs", queue=queue)


async def test_queues_and_ledger_are_asked_no_more_often_than_is_set() -> None:
    asked = []

    class CountedLedger:
        async def backlog(self) -> Backlog:
            asked.append("outbox")
            return Backlog(depth=0, oldest_age=0.0)

        async def waiting(self) -> int:
            asked.append("letters")
            return 7

    async def levels() -> list[QueueLevel]:
        asked.append("queue")
        return [QueueLevel(queue="jobs", waiting=3, leased=0, delayed=0, oldest_seconds=1)]

    metrics = Metrics(in_flight=lambda: 0)
    ledger: Any = CountedLedger()
    figures = Figures(metrics=metrics, outbox=ledger, dead_letters=ledger, levels=levels, every_seconds=60)

    told = await asyncio.gather(*(figures.render() for _ in range(20)))

    assert ["outbox", "letters", "queue"] == asked
    assert all(b"bridge_dead_letters 7.0" in each for each in told)
    assert all(b'bridge_queue_messages{queue="jobs",source="local",state="waiting"} 3.0' in each for each in told)


def test_inference_servers_are_counted_by_how_they_stand() -> None:
    told = Metrics(in_flight=lambda: 0, servers=lambda: {"serving": 2, "away": 1}).render(
        Backlog(depth=0, oldest_age=0.0), [], dead_letters=0
    )
    assert b'bridge_inference_servers{standing="serving"} 2.0' in told
    assert b'bridge_inference_servers{standing="away"} 1.0' in told
