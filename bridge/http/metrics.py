"""Figures for Prometheus. Alone in importing its client."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge.errors import BridgeError
from bridge.ledger.port import Backlog, Outbox
from bridge.steps import Step, StepTaken

# What the queue may take to tell how much it holds.
_QUEUE_SECONDS = 3.0
_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


class _StepSeconds(Collector):
    """A histogram for each step. The library's own takes a lock for each of a job's ten steps; here one thread counts, and reads."""

    def __init__(self) -> None:
        # By step: how many fell into each bucket, the last one for what is above all bounds; and their sum.
        self._counts: dict[Step, list[int]] = {}
        self._sums: dict[Step, float] = {}

    def observe(self, taken: StepTaken) -> None:
        """Count one step."""
        counts = self._counts.get(taken.step)
        if counts is None:
            counts = self._counts[taken.step] = [0] * (len(_BUCKETS) + 1)
            self._sums[taken.step] = 0.0
        counts[bisect_left(_BUCKETS, taken.seconds)] += 1
        self._sums[taken.step] += taken.seconds

    def collect(self) -> Iterator[Metric]:
        """As the library asks for it: each bucket holds those below it too."""
        family = HistogramMetricFamily("bridge_step_seconds", "Seconds from the step before, by step.", labels=["step"])
        bounds = [*(str(float(bound)) for bound in _BUCKETS), "+Inf"]
        for step, counts in self._counts.items():
            family.add_metric([step.value], list(zip(bounds, accumulate(counts), strict=True)), self._sums[step])
        yield family


class Metrics:
    """An observer that counts every step, and what its figures look like to Prometheus."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, *, in_flight: Callable[[], int]) -> None:
        """`in_flight`: tells how many jobs are worked on."""
        self._registry = CollectorRegistry()
        self._jobs = Counter("bridge_jobs", "Jobs that ended, by system and outcome.", ["system", "outcome"], registry=self._registry)
        self._tries = Counter("bridge_tries", "Tries that came back from a handler.", ["system", "outcome"], registry=self._registry)
        self._seconds = _StepSeconds()
        self._registry.register(self._seconds)
        self._waiting = Gauge("bridge_queue_messages", "Messages in the queues that jobs come from.", registry=self._registry)
        self._depth = Gauge("bridge_outbox_messages", "Messages that are committed and not yet sent.", registry=self._registry)
        self._age = Gauge("bridge_outbox_oldest_seconds", "Age of the oldest message that is not yet sent.", registry=self._registry)
        Gauge("bridge_jobs_in_flight", "Jobs being worked on.", registry=self._registry).set_function(in_flight)

    def on_step(self, taken: StepTaken) -> None:
        """Count one step."""
        self._seconds.observe(taken)
        if taken.step is Step.COMMITTED:
            self._jobs.labels(taken.system, taken.outcome).inc()
        elif taken.step is Step.BURIED:
            self._jobs.labels("unknown", "poison").inc()
        elif taken.step is Step.HANDLED:
            self._tries.labels(taken.system, taken.outcome).inc()

    def render(self, backlog: Backlog, *, waiting: float) -> bytes:
        """All figures in the text format. `waiting`: messages in the queues that jobs come from."""
        self._waiting.set(waiting)
        self._depth.set(backlog.depth)
        self._age.set(backlog.oldest_age)
        return generate_latest(self._registry)


class Figures:
    """What is counted here, and what is asked for whenever the figures are."""

    def __init__(self, *, metrics: Metrics, outbox: Outbox, queue_depth: Callable[[], Awaitable[int]]) -> None:
        self._metrics = metrics
        self._outbox = outbox
        self._queue_depth = queue_depth

    async def render(self) -> bytes:
        """All figures in the text format. Raises `TransientError` when the ledger is out of reach."""
        return self._metrics.render(await self._outbox.backlog(), waiting=await self._waiting())

    async def _waiting(self) -> float:
        """Not a number while the queue is out of reach: the other figures are told all the same."""
        try:
            async with asyncio.timeout(_QUEUE_SECONDS):
                return await self._queue_depth()
        except (BridgeError, TimeoutError):
            return math.nan
