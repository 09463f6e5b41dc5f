"""Figures for Prometheus. Alone in importing its client."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector

from bridge.ledger.port import Backlog
from bridge.sources.port import QueueLevel
from bridge.steps import REDELIVERED, Step, StepTaken
from bridge.vitals import Lease, Vitals

_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
# What a try came to, by the name of its outcome; whatever is not here was not foreseen.
CLASSES = {
    "succeeded": "succeeded",
    "failed": "failed",
    "interrupted": "interrupted",
    "TransientError": "transient",
    "DeviceError": "transient",
    "TooSlowError": "transient",
    "OverloadError": "overload",
    "HeldUpError": "held_up",
    "ServerLostError": "interrupted",
    "NotYetError": "waiting",
    "PermanentError": "permanent",
    "RefusedError": "permanent",
    "PoisonError": "poison",
    "LeaseLostError": "lost",
    "ConfigurationError": "configuration",
}


class _StepSeconds(Collector):
    """A histogram for each step. The library's own takes a lock for each of a job's ten steps; here one thread counts, and reads."""

    def __init__(self) -> None:
        # By system and step: how many fell into each bucket, the last one for what is above all bounds; and their sum.
        self._counts: dict[tuple[str, Step], list[int]] = {}
        self._sums: dict[tuple[str, Step], float] = {}

    def observe(self, taken: StepTaken) -> None:
        """Count one step."""
        labels = (taken.system, taken.step)
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(_BUCKETS) + 1)
            self._sums[labels] = 0.0
        counts[bisect_left(_BUCKETS, taken.seconds)] += 1
        self._sums[labels] += taken.seconds

    def collect(self) -> Iterator[Metric]:
        """As the library asks for it: each bucket holds those below it too."""
        family = HistogramMetricFamily("bridge_step_seconds", "Seconds from the step before.", labels=["system", "step"])
        bounds = [*(str(float(bound)) for bound in _BUCKETS), "+Inf"]
        for (system, step), counts in self._counts.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric([system, step.value], buckets, self._sums[system, step])
        yield family


class Metrics:
    """An observer that counts every step, and what its figures look like to Prometheus."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(
        self,
        *,
        in_flight: Callable[[], int],
        vitals: Vitals | None = None,
        source: str = "local",
        systems: Sequence[str] = (),
        servers: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        """`in_flight`: tells how many jobs are worked on. `source`, `systems`: what counts from 0 on before anything happens.

        `servers`: tells how many inference servers there are of each standing.
        """
        self._source = source
        registry = self._registry = CollectorRegistry()
        self._count(registry)
        self._measure(registry)
        Gauge("bridge_jobs_in_flight", "Jobs being worked on.", registry=registry).set_function(in_flight)
        vitals = vitals or Vitals()
        registry.register(_FencedWrites(vitals, systems))
        silent = "For how long the loop, the relay or a heartbeat that owes a sign of life has given none."
        Gauge("bridge_silence_seconds", silent, registry=registry).set_function(vitals.silence)
        # What the process takes, and when it began; on Linux.
        ProcessCollector(registry=registry)
        if servers is not None:
            registry.register(_Servers(servers))
        margin = Gauge(
            "bridge_lease_margin_seconds", "What is left of the lease that ends first; NaN without one.", ["lease"], registry=registry
        )
        for lease in Lease:
            margin.labels(lease.value).set_function(partial(vitals.margin, lease))
        self._begin_at_zero(source, systems)

    def _begin_at_zero(self, source: str, systems: Sequence[str]) -> None:
        """A rate begins at the second sample: what appeared with the first failure would hide it."""
        for counter in (self._deliveries, self._redeliveries):
            counter.labels(source)
        self._jobs.labels("unknown", "poison")
        for system in systems:
            for outcome in ("succeeded", "failed"):
                self._jobs.labels(system, outcome)
                self._took.labels(system, outcome)

    def _count(self, registry: CollectorRegistry) -> None:
        self._deliveries = Counter("bridge_deliveries", "Messages received, by source.", ["source"], registry=registry)
        self._redeliveries = Counter("bridge_redeliveries", "Messages received not for the first time.", ["source"], registry=registry)
        self._jobs = Counter("bridge_jobs", "Jobs that ended, by system and outcome.", ["system", "outcome"], registry=registry)
        self._fallbacks = Counter(
            "bridge_fallbacks",
            "Jobs that the server's CPU did in a GPU's place, or another program in the server's.",
            ["system", "by"],
            registry=registry,
        )
        self._tries = Counter(
            "bridge_tries", "Tries that came back from a handler, by what they came to.", ["system", "class", "outcome"], registry=registry
        )
        self._steps = _StepSeconds()
        registry.register(self._steps)
        self._took = Histogram(
            "bridge_job_seconds", "Seconds from receipt to commit.", ["system", "outcome"], buckets=_BUCKETS, registry=registry
        )

    def _measure(self, registry: CollectorRegistry) -> None:
        labels = ["source", "queue"]
        self._waiting = Gauge("bridge_queue_messages", "Messages in the queues that jobs come from.", [*labels, "state"], registry=registry)
        self._oldest = Gauge("bridge_queue_oldest_seconds", "Age of the oldest message that waits there.", labels, registry=registry)
        self._dead = Gauge(
            "bridge_queue_dead_messages", "Messages that a queue has moved to its dead-letter queue.", labels, registry=registry
        )
        self._cases = Gauge(
            "bridge_escalations", "Cases for people that wait to be handed over, and that were given up.", ["state"], registry=registry
        )
        self._letters = Gauge("bridge_dead_letters", "Messages that ended without a result and were not replayed.", registry=registry)
        self._reachable = Gauge("bridge_queue_reachable", "Whether the queues tell what they hold.", ["source"], registry=registry)
        self._unsent = Gauge("bridge_outbox_messages", "Messages that are committed and not yet sent.", registry=registry)
        self._lag = Gauge("bridge_outbox_oldest_seconds", "Age of the oldest message that is not yet sent.", registry=registry)

    def on_step(self, taken: StepTaken) -> None:
        """Count one step."""
        self._steps.observe(taken)
        if taken.step is Step.RECEIVED:
            self._deliveries.labels(taken.source).inc()
            if taken.outcome == REDELIVERED:
                self._redeliveries.labels(taken.source).inc()
        elif taken.step is Step.COMMITTED:
            self._jobs.labels(taken.system, taken.outcome).inc()
            self._took.labels(taken.system, taken.outcome).observe(taken.since_receipt)
            if taken.fallback:
                self._fallbacks.labels(taken.system, taken.fallback).inc()
        elif taken.step is Step.BURIED:
            self._jobs.labels("unknown", "poison").inc()
        elif taken.step is Step.HANDLED:
            self._tries.labels(taken.system, CLASSES.get(taken.outcome, "unforeseen"), taken.outcome).inc()

    def render(
        self,
        backlog: Backlog,
        levels: Sequence[QueueLevel] | None,
        *,
        dead_letters: int,
        escalations: Mapping[str, int] | None = None,
    ) -> bytes:
        """All figures in the text format. `levels`: of the queues that jobs come from; None while they do not tell.

        `dead_letters`: of the ledger, that nobody has replayed. `escalations`: cases for people, by state; None where nobody tells.
        """
        self._reachable.labels(self._source).set(levels is not None)
        self._waiting.clear()
        self._oldest.clear()
        self._dead.clear()
        for level in levels or ():
            for state, count in (("waiting", level.waiting), ("leased", level.leased), ("delayed", level.delayed)):
                if not math.isnan(count):
                    self._waiting.labels(self._source, level.queue, state).set(count)
            self._oldest.labels(self._source, level.queue).set(level.oldest_seconds)
            if not math.isnan(level.dead):
                self._dead.labels(self._source, level.queue).set(level.dead)
        self._cases.clear()
        for state, count in (escalations or {}).items():
            self._cases.labels(state).set(count)
        self._letters.set(dead_letters)
        self._unsent.set(backlog.depth)
        self._lag.set(backlog.oldest_age)
        return generate_latest(self._registry)


class _FencedWrites(Collector):
    """Counted where they happen."""

    def __init__(self, vitals: Vitals, systems: Sequence[str]) -> None:
        self._vitals = vitals
        self._systems = tuple(systems)

    def collect(self) -> Iterable[Metric]:
        """One figure for each system."""
        family = CounterMetricFamily("bridge_fenced_writes", "Writes refused as another worker had taken the job over.", labels=["system"])
        for system, count in {**dict.fromkeys(self._systems, 0), **self._vitals.fenced_writes}.items():
            family.add_metric([system], count)
        yield family


class _Servers(Collector):
    """Known to the client."""

    def __init__(self, standings: Callable[[], Mapping[str, int]]) -> None:
        self._standings = standings

    def collect(self) -> Iterable[Metric]:
        """One figure for each standing."""
        family = GaugeMetricFamily("bridge_inference_servers", "Inference servers by how they stand.", labels=["standing"])
        for standing, count in self._standings().items():
            family.add_metric([standing], count)
        yield family
