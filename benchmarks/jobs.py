"""How many jobs does the bridge do, what does it add to one, and what does it need while it does nothing?

- Jobs per second with a system that does nothing, jobs and results in Redis and the whole ledger in PostgreSQL (claim, end with one event,
  relay, acknowledgement), with 1 and 2 processes; beside it Celery (late acknowledgement, nothing taken ahead) and Dramatiq, each with one
  insert and one update in the same PostgreSQL for each job. All start before and are asked in turns; the servers keep what they confirm on
  the disk. In each round the bridge is held against the faster peer, and the median of these ratios counts: what else the machine does
  differs more between rounds than within one. Bars: 1.0, and 300 jobs/s. With its queue in PostgreSQL too it is told without a bar.
- Added latency: from the push to the list until the result is published, one job at a time. Bar: a median of 15 ms.
- An idle bridge on SQS with all that `bridge run` has: memory, and seconds from its start to its first receive. Bars: 130 MB, 2 s.

The peers run as fast as they can: Dramatiq with 32 threads (with its default of 8 it is slower, with 64 not faster), which has 64 messages
in hand as the bridge has with 64 slots; Celery with its pool of processes, one job at a time in each, without gossip, mingle and heartbeat.

Run: python benchmarks/jobs.py [--check] [--jobs 4000] [--rounds 5] [--slots 64] [--threads 32] [--parts rate,latency,idle]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from rich.console import Console
from rich.table import Table

from benchmarks.support.choices import some_of
from benchmarks.support.jobs.idle_bridge import Idle, make_queues, measure_idle
from benchmarks.support.jobs.latency import through_postgres, through_redis
from benchmarks.support.jobs.queues import Celery, Dramatiq, JobSystem, Place, PostgresBridge, RedisBridge, seconds_for, working
from benchmarks.support.peers.environments import PeerMissing
from tests.support.servers.ministack import running_ministack
from tests.support.servers.postgres import PostgresServer, postgres_server
from tests.support.servers.redis import redis_server

PARTS = ("rate", "latency", "idle")
PROCESSES = (1, 2)
LEAST_RATIO = 1.0
LEAST_RATE = 300.0
MOST_LATENCY_MS = 15.0
MOST_MEMORY = 130 * 10**6
MOST_START_SECONDS = 2.0
_WARM_UP_JOBS = 300
_LATENCY_JOBS = 60
_IDLE_ROUNDS = 3
# As a server that must not lose anything runs; the tests' own do without.
_DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
# By system, jobs per second in each round.
Rates = Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was measured, and its bar."""

    name: str
    told: str
    # None when it has no bar.
    met: bool | None = None


def main() -> int:
    """Print the tables; 1 when `--check` was given and a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--jobs", type=int, default=4000, help="jobs of each system in each round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each system")
    parser.add_argument("--slots", type=int, default=64, help="jobs at once in each process of the bridge")
    parser.add_argument("--threads", type=int, default=32, help="threads in each process of Dramatiq; it takes two messages for each")
    parser.add_argument("--parts", type=some_of(PARTS), default=PARTS, help=f"what to measure, some of {','.join(PARTS)}")
    options = parser.parse_args()
    parts = options.parts
    console = Console(width=120)
    figures: list[Figure] = []
    with postgres_server(**_DURABLE) as postgres:
        if "rate" in parts:
            for processes in PROCESSES:
                rates = measure_rates(console, postgres, processes, options)
                console.print(table_of(rates, processes))
                figures += rate_figures(rates, processes)
        if "latency" in parts:
            figures += latency_figures(postgres)
        if "idle" in parts:
            figures += idle_figures(console, postgres)
    console.print(summary(figures))
    return int(options.check and any(figure.met is False for figure in figures))


def measure_rates(console: Console, postgres: PostgresServer, processes: int, options: argparse.Namespace) -> Rates:
    """All systems with so many processes, in turns."""
    bridges = [RedisBridge(concurrency=options.slots), PostgresBridge(concurrency=options.slots)]
    systems: list[JobSystem] = [*bridges, Celery(), Dramatiq(threads=options.threads)]
    rates: dict[str, list[float]] = {}
    with ExitStack() as stack:
        ready: list[tuple[JobSystem, Place]] = []
        for system in systems:
            place = open_place(stack, postgres, system)
            try:
                stack.enter_context(working(system, place, processes))
                seconds_for(system, place, "warm-", _WARM_UP_JOBS)
            except (PeerMissing, TimeoutError) as error:
                console.print(f"NOT MEASURED: {system.name}: {error}", style="bold")
                continue
            ready.append((system, place))
        for number in range(options.rounds):
            for system, place in ready:
                rates.setdefault(system.name, []).append(options.jobs / seconds_for(system, place, f"round{number}-", options.jobs))
    return rates


def open_place(stack: ExitStack, postgres: PostgresServer, system: JobSystem) -> Place:
    """A Valkey and a database of a system's own."""
    return Place(
        postgres=postgres,
        redis=stack.enter_context(redis_server()),
        database=postgres.new_database(template=system.template(postgres)),
        folder=Path(stack.enter_context(tempfile.TemporaryDirectory())),
    )


def table_of(rates: Rates, processes: int) -> Table:
    """Each system's best, median and least round."""
    load = os.getloadavg()[0]
    table = Table(title=f"Jobs per second, {processes} process{'es' * (processes > 1)}; {os.cpu_count()} cores, load average {load:.1f}")
    for column in ("system", "best", "median", "least"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for name, found in rates.items():
        table.add_row(name, f"{max(found):.0f}", f"{median(found):.0f}", f"{min(found):.0f}")
    return table


def rate_figures(rates: Rates, processes: int) -> Sequence[Figure]:
    """The bridge against the faster peer, and by itself."""
    own = rates.get(RedisBridge.name, (0.0,))
    peers = {name: rates[name] for name in (Celery.name, Dramatiq.name) if name in rates}
    rate = median(own)
    figures = [Figure(name=f"jobs/s, {processes} in all", told=f"{rate:.0f}; at least {LEAST_RATE:.0f}", met=rate >= LEAST_RATE)]
    if peers:
        faster = max(peers, key=lambda name: median(peers[name]))
        ratios = [bridge / peer for bridge, peer in zip(own, peers[faster], strict=True)]
        told = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); at least {LEAST_RATIO}"
        figures.append(Figure(name=f"over {faster}'s, {processes} in all", told=told, met=median(ratios) >= LEAST_RATIO))
    else:
        figures.append(Figure(name=f"over the peers', {processes} in all", told="NOT MEASURED: no peer ran"))
    return figures


def latency_figures(postgres: PostgresServer) -> Sequence[Figure]:
    """What the bridge adds to one job at a time, with either queue."""
    figures = []
    redis, postgres_alone = RedisBridge(concurrency=2), PostgresBridge(concurrency=2)
    for system, measure, has_bar in ((redis, through_redis, True), (postgres_alone, through_postgres, False)):
        with ExitStack() as stack:
            place = open_place(stack, postgres, system)
            stack.enter_context(working(system, place, 1))
            taken = measure(place, warm_up=10, jobs=_LATENCY_JOBS)
        told = f"p50 {median(taken):.1f} ms, p95 {quantiles(taken, n=20)[-1]:.1f} ms"
        bar, met = (f"; p50 below {MOST_LATENCY_MS:.0f} ms", median(taken) < MOST_LATENCY_MS) if has_bar else ("", None)
        figures.append(Figure(name=f"added latency, {system.name}", told=told + bar, met=met))
    return figures


def idle_figures(console: Console, postgres: PostgresServer) -> Sequence[Figure]:
    """An idle bridge on SQS, with either database; of the seconds to its first receive the least counts."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name, running_ministack(Path(name)) as emulator:
        for kind, database in (("SQLite", str(Path(name) / "bridge.db")), ("PostgreSQL", postgres.new_database())):
            make_queues(Path(name), emulator, database)
            measure_idle(Path(name), emulator, database)  # compiles what is imported
            runs: list[Idle] = [measure_idle(Path(name), emulator, database) for _ in range(_IDLE_ROUNDS)]
            memory, seconds = max(run.resident_bytes for run in runs), min(run.seconds for run in runs)
            share = max(run.proportional_bytes for run in runs)
            told = f"{memory / 1e6:.0f} MB resident ({share / 1e6:.0f} by share); at most {MOST_MEMORY / 1e6:.0f}"
            figures.append(Figure(name=f"idle on SQS, ledger in {kind}", told=told, met=memory < MOST_MEMORY))
            told = f"{seconds:.2f} s (processor {min(run.processor_seconds for run in runs):.2f}); at most {MOST_START_SECONDS:g}"
            figures.append(Figure(name=f"start to first receive, {kind}", told=told, met=seconds < MOST_START_SECONDS))
    return figures


def summary(figures: Sequence[Figure]) -> Table:
    """Each figure and whether its bar is met."""
    table = Table(title=f"The bridge; load average {os.getloadavg()[0]:.1f}")
    for column in ("figure", "measured", "bar"):
        table.add_column(column)
    for figure in figures:
        table.add_row(figure.name, figure.told, {None: "-", True: "met", False: "MISSED"}[figure.met])
    return table


if __name__ == "__main__":
    sys.exit(main())
