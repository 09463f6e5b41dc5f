"""What does the bridge add to a run of the consensus pipeline, the language model's time aside?

One bridge, its ledger and the platform's tables in a PostgreSQL that keeps what it confirms on the disk, jobs from a Pub/Sub of this
process, and a language model that takes a fixed time for each answer. A run waits for it twice: for the proposal, and for five reviews
side by side. What is left of the time from the publishing of the message to the end of the run is told, one run at a time. Bar: a
median of 60 ms. Then 50 runs at once: runs per second, and the processor time of the bridge for each.

Run: python benchmarks/consensus.py [--check] [--runs 30] [--answer-ms 100]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from rich.console import Console
from rich.table import Table

from benchmarks.support.process_tree import cpu_seconds
from bridge.records.consensus import ConsensusRecords, NewRun
from bridge.systems.consensus import messages
from tests.support.bridge.bridge_process import BridgeSetup
from tests.support.bridge.consensus_runs import consensus_store, new_run
from tests.support.servers.language_model import KEY, FakeLanguageModel, fake_language_model
from tests.support.servers.postgres import postgres_server
from tests.support.servers.pubsub_server import PubsubServer, pubsub_server

MOST_ADDED_MS = 60.0
_WARM_UP = 5
_AT_ONCE = 50
_WAITS = 2
_TOPIC, _SUBSCRIPTION = "consensus-engine-jobs", "consensus-engine-jobs-sub"
# As a server that must not lose anything runs; the tests' own do without.
_DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB"}


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was measured."""

    # Milliseconds beside the language model's, of each run alone.
    added: list[float]
    # Of runs at once.
    per_second: float
    cpu_ms: float


def main() -> int:
    """Print the table; 1 when `--check` was given and the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when the bar is missed")
    parser.add_argument("--runs", type=int, default=30, help="runs, one at a time")
    parser.add_argument("--answer-ms", type=float, default=100, help="what the language model takes for an answer")
    options = parser.parse_args()
    with postgres_server(**_DURABLE) as postgres, tempfile.TemporaryDirectory() as folder, fake_language_model() as service:
        service.seconds = options.answer_ms / 1000
        found = asyncio.run(measure(Path(folder), postgres.new_database(), service, options.runs))
    met = median(found.added) < MOST_ADDED_MS
    table = Table("figure", "measured", "bar", title=f"Runs of the consensus pipeline; answers take {options.answer_ms:.0f} ms")
    spread = f"p50 {median(found.added):.1f} ms, p95 {quantiles(found.added, n=20)[-1]:.1f} ms"
    table.add_row("added to one run", f"{spread}; p50 below {MOST_ADDED_MS:.0f}", "met" if met else "MISSED")
    table.add_row(f"{_AT_ONCE} runs at once", f"{found.per_second:.1f} runs/s", "-")
    table.add_row("processor time of the bridge", f"{found.cpu_ms:.1f} ms a run", "-")
    Console(width=100).print(table)
    return int(options.check and not met)


async def measure(folder: Path, database: str, service: FakeLanguageModel, count: int) -> Found:
    """Start a bridge and send it runs."""
    async with pubsub_server() as server, consensus_store(database) as (_, records):
        server.create(_TOPIC, _SUBSCRIPTION)
        variables = {
            "BRIDGE_DATABASE": database,
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": service.url,
            "PUBSUB_PROJECT_ID": "trial",
            "PUBSUB_EMULATOR_HOST": server.address,
            "WORKER_MAX_CONCURRENCY": "10",
            "BRIDGE_LOG_LEVEL": "info",
        }
        with BridgeSetup(folder=folder, inference="", variables={**variables, "BRIDGE_CONCURRENCY": "10"}).running() as bridge:
            for _ in range(_WARM_UP):
                await seconds_of(server, records)
            alone = [await seconds_of(server, records) for _ in range(count)]
            began, cpu = time.monotonic(), cpu_seconds(bridge.pid)
            await asyncio.gather(*(seconds_of(server, records) for _ in range(_AT_ONCE)))
            seconds, cpu = time.monotonic() - began, cpu_seconds(bridge.pid) - cpu
    added = [1000 * (taken - _WAITS * service.seconds) for taken in alone]
    return Found(added=added, per_second=_AT_ONCE / seconds, cpu_ms=1000 * cpu / _AT_ONCE)


async def seconds_of(server: PubsubServer, records: ConsensusRecords) -> float:
    """From the publishing of a run's message until its row says that it has ended, by the database's clock."""
    run = new_run("idea 1")
    await records.create(run)
    published = time.time()
    await _publish(server, run)
    while True:
        row = await records.find(str(run.run_id))
        if row is not None and row.completed_at is not None:
            return row.completed_at.timestamp() - published
        await asyncio.sleep(0.02)


async def _publish(server: PubsubServer, run: NewRun) -> None:
    run_id = str(run.run_id)
    body = messages.message_of(run_id=run_id, run_type="initial", priority="normal", payload={"idea": run.input_idea})
    server.publish(_TOPIC, body, run_id=run_id, run_type="initial", priority="normal")


if __name__ == "__main__":
    sys.exit(main())
