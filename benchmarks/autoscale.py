"""How long do jobs wait, and what do they cost, from 10 to 1,000,000 a day, on workers that the platforms start and stop?

Each of the five workers runs through the policies of `deploy/scaling.toml`, as ECS, Cloud Run and KEDA follow them: days with two peaks
and with bursts, tasks that take their time to start, machines of Spot that are taken away. Service times:
`support/autoscaling/measured.toml`.

For each load the least capacity at rest is chosen with which jobs do not wait long. Bars: at each load the 95th percentile of the waits is
then below the 5 minutes of the alert `LaminaJobsSlow`. With the capacity that the modules ship it is so from 100 jobs a day up to what they
are meant for; or below 10 minutes where ECS begins from nothing.

Run: python benchmarks/autoscale.py [--check] [--measure] [--chart docs/scaling.png] [--most 1000000] [--workers slides,labs]
"""

from __future__ import annotations

import argparse
import math
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.support.autoscaling.chart import Panel, draw
from benchmarks.support.autoscaling.model import DAY, Fleet, Outcome, Policy, Simulation, arrivals_of, service_seconds
from benchmarks.support.autoscaling.policies import CloudRun, EcsTracking, Keda
from benchmarks.support.autoscaling.workers import MOST_WAIT, WORKERS, Worker
from benchmarks.support.choices import some_of

ROOT = Path(__file__).parents[1]
MEASURED = Path(__file__).parent / "support" / "autoscaling" / "measured.toml"
SHIPPED = ROOT / "deploy" / "scaling.toml"
LOADS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
# So many jobs at least are simulated, over so many days at most.
_JOBS, _DAYS = 400, 30
_SEED = 20261128
# The busiest hour has so many times the mean's jobs.
_PEAK = 3
# What is tried at rest, of the tasks that the busiest hour keeps busy.
_SHARES_OF_PEAK = (0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A worker under a load, with the capacity that was chosen for it."""

    worker: Worker
    load: int
    # Tasks at rest.
    least: int
    outcome: Outcome
    # 95th percentile of the waits with the shipped capacity, in seconds.
    shipped: float
    # US dollars.
    cost_a_job: float

    def wait(self, percentile: float) -> float:
        """In seconds."""
        return float(np.percentile(self.outcome.waits, percentile))

    @property
    def hours_a_day(self) -> float:
        """Of tasks."""
        return self.outcome.task_hours / days_of(self.load)


def main() -> int:
    """Print the table; 1 when `--check` was given and a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--measure", action="store_true", help="measure this machine first, and keep that")
    parser.add_argument("--chart", type=Path, help="where to draw the figures, as PNG")
    parser.add_argument("--most", type=int, default=LOADS[-1], help="the largest load that is tried")
    names = list(dict.fromkeys(each.name for each in WORKERS))
    parser.add_argument("--workers", type=some_of(names), default=names, help="only these, separated by commas")
    options = parser.parse_args()
    if options.measure:
        keep_measured()
    figures, shipped = read_toml(MEASURED), read_toml(SHIPPED)
    chosen = [worker for worker in WORKERS if worker.name in options.workers]
    rows = [row_of(worker, load, figures, shipped) for worker in chosen for load in LOADS if load <= options.most]
    Console(width=150).print(table_of(rows, figures))
    if options.chart:
        draw_chart(options.chart, rows)
    missed = [line for row in rows for line in missed_bars(row)]
    print("\n".join(missed) or "all bars are met")
    return int(options.check and bool(missed))


def keep_measured() -> None:
    """Measure, and put the figures in place of the old ones; what is assumed stays."""
    from benchmarks.support.autoscaling.measure import measure

    found = measure()
    kept = MEASURED.read_text(encoding="utf-8").partition("# Assumed")
    lines = [f'machine = "{found["machine"]}"', f'day = "{found["day"]}"', f"cores = {found['cores']}", ""]
    for part in ("start_seconds", "rates"):
        lines += [f"[{part}]", *(f"{key} = {value}" for key, value in found[part].items()), ""]
    head = kept[0].partition("machine =")[0]
    MEASURED.write_text(head + "\n".join(lines) + "\n" + kept[1] + kept[2], encoding="utf-8")


def read_toml(path: Path) -> dict[str, Any]:
    """A file of figures."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def days_of(load: int) -> int:
    """As many days as give a percentile something to stand on."""
    return min(max(math.ceil(_JOBS / load), 1), _DAYS)


def row_of(worker: Worker, load: int, figures: Mapping[str, Any], shipped: Mapping[str, Any]) -> Row:
    """Choose the capacity for a load: as little at rest as keeps jobs from waiting long, and at most what the load needs."""
    numbers = shipped[worker.policy[0]][worker.policy[1]]
    least, most = (int(each) for each in capacity_of(numbers))
    least = max(least, 1) if worker.unasked else least
    trial = Trial(worker, load, figures, shipped)
    outcome = as_shipped = trial.run(least, most)
    enough = max(most, 6 * trial.at_peak)
    for at_rest in (least, 1, *(math.ceil(share * trial.at_peak) for share in _SHARES_OF_PEAK)):
        if not slow(outcome):
            break
        if at_rest >= least:
            least = at_rest
            outcome = trial.run(least, least if worker.unasked else enough)
    return Row(
        worker=worker,
        load=load,
        least=least,
        outcome=outcome,
        shipped=float(np.percentile(as_shipped.waits, 95)),
        cost_a_job=outcome.task_hours * figures["prices"][worker.platform] / len(outcome.waits),
    )


def slow(outcome: Outcome) -> bool:
    """Whether the bar is missed."""
    return bool(np.percentile(outcome.waits, 95) >= MOST_WAIT)


def capacity_of(numbers: Mapping[str, Any]) -> tuple[int, int]:
    """Fewest and most tasks of a policy, under whatever names."""
    names = (("min_capacity", "max_capacity"), ("min_instances", "max_instances"), ("minReplicaCount", "maxReplicaCount"))
    return next((numbers[least], numbers[most]) for least, most in names if least in numbers)


class Trial:
    """One worker under one load, with the same jobs whatever the capacity."""

    def __init__(self, worker: Worker, load: int, figures: Mapping[str, Any], shipped: Mapping[str, Any]) -> None:
        """`figures`, `shipped`: the files."""
        self._worker = worker
        self._shipped = shipped
        self._platform = figures["platforms"][worker.platform]
        self.place_seconds = _place_seconds(worker, figures)
        # Tasks that the busiest hour keeps busy.
        self.at_peak = math.ceil(_PEAK * load / DAY * self.place_seconds / worker.concurrency)
        days = days_of(load)
        self._arrivals = arrivals_of(load, days=days, bursts=0.15, seed=_SEED).tolist()
        self._seconds = service_seconds(load * days, mean=self.place_seconds, spread=worker.spread, seed=_SEED).tolist()
        started = figures["start_seconds"].get(worker.rate, figures["programs"]["bridge"])
        self._fleet = Fleet(
            concurrency=worker.concurrency,
            start_seconds=self._platform["start_seconds"] + started,
            poll_seconds=30.0 if worker.rate == "rollups" else 1.0,
            interruptions_an_hour=self._platform["interruptions_an_hour"],
            notice_seconds=self._platform["notice_seconds"],
            protected=self._platform["protected"],
            drain_seconds=self._platform["drain_seconds"],
            kept=worker.kept,
        )

    def run(self, least: int, most: int) -> Outcome:
        """With so many tasks."""
        policy = self._policy(least, most)
        return Simulation(self._arrivals, self._seconds, self._fleet, policy, seed=_SEED).run()

    def _policy(self, least: int, most: int) -> Policy:
        kind, place = self._worker.policy
        numbers = self._shipped[kind][place]
        if place == "ocr_worker":
            # It is made of that module, with numbers of its own.
            numbers = {**self._shipped[kind]["gpu_inference"], **numbers}
        if self._worker.unasked and kind == "ecs":
            least = most = max(least, 1)
        if kind == "keda":
            length = numbers["length"] / (self._worker.units if self._worker.rate == "rollups" else 1)
            return Keda(
                minimum=least,
                maximum=most,
                queue_length=length,
                polling_interval=numbers["pollingInterval"],
                cooldown_period=numbers["cooldownPeriod"],
                stabilization_seconds=numbers["stabilizationWindowSeconds"],
            )
        if self._worker.platform == "cloud_run":
            return CloudRun(minimum=least, maximum=most, cores=self._worker.cores, cores_a_job=self._platform["cores_a_job"])
        cooldowns = self._shipped["ecs"]["queue_scaling"]
        return EcsTracking(
            minimum=least,
            maximum=most,
            target_backlog=numbers.get("target_backlog", numbers.get("target_queue_depth")),
            concurrency=self._worker.concurrency,
            scale_in_cooldown=numbers.get("scale_in_cooldown", cooldowns["scale_in_cooldown"]),
            scale_out_cooldown=numbers.get("scale_out_cooldown", cooldowns["scale_out_cooldown"]),
            hold_while_working=numbers.get("hold_while_working", False),
        )


def _place_seconds(worker: Worker, figures: Mapping[str, Any]) -> float:
    """How long a job takes in one place of a task whose other places are taken too."""
    if not worker.rate:
        return worker.units
    rate = figures["rates"][worker.rate] * worker.cores / figures["cores"]
    return worker.concurrency * worker.units / rate


def missed_bars(row: Row) -> Sequence[str]:
    """Each bar that a row misses, in words."""
    told = f"{row.worker.name} on {row.worker.platform}, {row.load:,} a day"
    missed = []
    if row.wait(95) >= MOST_WAIT:
        missed.append(f"MISSED: {told}: no capacity keeps the 95th percentile of waits below {MOST_WAIT:.0f} s ({row.wait(95):.0f} s)")
    if 100 <= row.load <= row.worker.meant_for and row.shipped >= row.worker.bar:
        missed.append(f"MISSED: {told}: with the shipped capacity the 95th percentile of waits is {row.shipped:.0f} s")
    if row.outcome.ended != len(row.outcome.waits):
        missed.append(f"MISSED: {told}: {len(row.outcome.waits) - row.outcome.ended} jobs never ended")
    return missed


def table_of(rows: Sequence[Row], figures: Mapping[str, Any]) -> Table:
    """All rows."""
    table = Table(title=f"Waits and costs of jobs, from figures of {figures['machine']}, {figures['day']}")
    for name in (
        "worker",
        "platform",
        "jobs a day",
        "tasks",
        "wait p50",
        "p95",
        "p99",
        "hours a day",
        "GPU hours",
        "US$ a job",
        "shipped p95",
    ):
        table.add_column(name, justify="left" if name in ("worker", "platform") else "right", no_wrap=True)
    for row in rows:
        hours = f"{row.hours_a_day:,.1f}"
        cells = [row.worker.name, row.worker.platform, f"{row.load:,}", f"{row.least}–{row.outcome.most_tasks}"]
        cells += [spoken(row.wait(each)) for each in (50, 95, 99)]
        cells += [hours, hours if row.worker.gpu else "", f"{row.cost_a_job:.5f}", spoken(row.shipped)]
        table.add_row(*cells, end_section=row.load == LOADS[-1])
    return table


def spoken(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def draw_chart(path: Path, rows: Sequence[Row]) -> None:
    """Waits and costs by load; of each worker the platform that comes first."""
    firsts: dict[str, str] = {}
    for each in WORKERS:
        firsts.setdefault(each.name, each.platform)
    mine = [row for row in rows if row.worker.platform == firsts[row.worker.name]]

    def lines(of: Any) -> dict[str, list[tuple[float, float]]]:
        return {f"{name} ({firsts[name]})": [(row.load, of(row)) for row in mine if row.worker.name == name] for name in firsts}

    waits = Panel(
        title="95th percentile of the waits, in seconds",
        lowest=-1,
        highest=4,
        lines=lines(lambda row: row.wait(95)),
        bar=MOST_WAIT,
        bar_name="LaminaJobsSlow: 5 minutes",
    )
    costs = Panel(title="US dollars a job", lowest=-6, highest=1, lines=lines(lambda row: row.cost_a_job))
    hours = Panel(title="Hours of tasks a day", lowest=-1, highest=6, lines=lines(lambda row: row.hours_a_day))
    draw(path, [waits, hours, costs], axis="jobs a day", first=1, last=int(math.log10(LOADS[-1])))


if __name__ == "__main__":
    sys.exit(main())
