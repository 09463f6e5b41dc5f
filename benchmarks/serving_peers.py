"""What does a request cost this server, and what MLServer and Triton?

The three run beside each other with the same models, and are asked in turns by one process with the same bytes: a trivial model with 64
bytes and with 1 MiB, and MiniLM with one text, by 1, 16 and 64 callers. The cost is the processor time of a server's whole process tree
over its requests. Of each server the round counts in which a request cost least, for another's work on the machine only adds.

Bars, in the geometric mean over the numbers of callers: 64 bytes cost at most 0.35 of MLServer's and 1.2 of Triton's, 1 MiB at most
0.9 of Triton's.

Run: python benchmarks/serving_peers.py [--check] [--seconds 1] [--rounds 5] [--servers lamina,mlserver,triton]
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.support.choices import some_of
from benchmarks.support.peers.environments import PeerMissing
from benchmarks.support.process_tree import cpu_seconds
from benchmarks.support.serving.load import MINILM, drive, text_request, trivial_request
from benchmarks.support.serving.servers import SERVERS, Server, running, write_repository
from inference_server.models.builders import BUILDERS

OWN = "lamina"
CALLERS = (1, 16, 64)
WORK: Mapping[str, bytes] = {"64 B": trivial_request(64), "1 MiB": trivial_request(2**20), "MiniLM": text_request()}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The most that a request may cost, as a share of what it costs a peer."""

    work: str
    peer: str
    most: float


BARS = (
    Bar(work="64 B", peer="mlserver", most=0.35),
    Bar(work="64 B", peer="triton", most=1.2),
    Bar(work="1 MiB", peer="triton", most=0.9),
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One server under one load, in one round."""

    # Microseconds of processor time of a request.
    cpu: float
    # Requests per second.
    rate: float
    # Milliseconds.
    p50: float


# By work, callers and server.
Costs = Mapping[tuple[str, int, str], Sequence[Cost]]


def main() -> int:
    """Print the tables; 1 when `--check` was given and a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each server under each load")
    parser.add_argument("--servers", type=some_of(SERVERS), default=["lamina", "mlserver", "triton"], help="the servers to run")
    options = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "built").mkdir()
        BUILDERS[MINILM](folder / "built")
        write_repository(folder / "models", folder / "built" / MINILM)
        servers = []
        for server in options.servers:
            try:
                servers.append(stack.enter_context(running(server, folder / "models", folder / server)))
            except PeerMissing as missing:
                console.print(f"NOT MEASURED: {missing}", style="bold")
        costs = measure(servers, seconds=options.seconds, rounds=options.rounds)
    names = [server.name for server in servers]
    console.print(table_of(costs, names))
    missed = report_bars(console, costs, names)
    return int(options.check and missed)


def measure(servers: Sequence[Server], *, seconds: float, rounds: int) -> Costs:
    """Ask the servers in turns, each under every load."""
    costs: dict[tuple[str, int, str], list[Cost]] = defaultdict(list)
    for _ in range(rounds):
        for work, request in WORK.items():
            for callers in CALLERS:
                for server in servers:
                    costs[work, callers, server.name].append(_cost(server, request, callers, seconds))
    return costs


def _cost(server: Server, request: bytes, callers: int, seconds: float) -> Cost:
    before = cpu_seconds(server.pid)
    load = drive(server.address, request, callers=callers, seconds=seconds)
    return Cost(cpu=1e6 * (cpu_seconds(server.pid) - before) / load.requests, rate=load.rate, p50=load.percentile(50))


def table_of(costs: Costs, servers: Sequence[str]) -> Table:
    """Each server's least cost, with its range; best rate; best latency."""
    table = Table(title=f"Processor time of a request, in microseconds; {platform.machine()}, {os.cpu_count()} cores")
    for column in ("model", "callers", "server", "least", "most", "× ours", "best req/s", "best p50 ms"):
        table.add_column(column, justify="left" if column in ("model", "server") else "right")
    for work in WORK:
        for callers in CALLERS:
            for server in servers:
                found = costs[work, callers, server]
                least = min(cost.cpu for cost in found)
                share = f"{least / _least(costs, work, callers, OWN):.2f}" if OWN in servers else "-"
                extremes = (f"{least:.0f}", f"{max(cost.cpu for cost in found):.0f}")
                best = (f"{max(cost.rate for cost in found):.0f}", f"{min(cost.p50 for cost in found):.2f}")
                table.add_row(work, str(callers), server, *extremes, share, *best, end_section=server == servers[-1])
    return table


def report_bars(console: Console, costs: Costs, servers: Sequence[str]) -> bool:
    """Print each bar and what was reached; whether one is missed."""
    missed = False
    for bar in BARS:
        if OWN not in servers or bar.peer not in servers:
            console.print(f"{bar.work} against {bar.peer}: not measured")
            continue
        ratios = [_least(costs, bar.work, callers, OWN) / _least(costs, bar.work, callers, bar.peer) for callers in CALLERS]
        mean = math.prod(ratios) ** (1 / len(ratios))
        by_callers = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        verdict = "met" if mean <= bar.most else "MISSED"
        console.print(f"{bar.work} against {bar.peer}: {mean:.2f} (by callers: {by_callers}); at most {bar.most}: {verdict}")
        missed = missed or mean > bar.most
    return missed


def _least(costs: Costs, work: str, callers: int, server: str) -> float:
    return min(cost.cpu for cost in costs[work, callers, server])


if __name__ == "__main__":
    sys.exit(main())
