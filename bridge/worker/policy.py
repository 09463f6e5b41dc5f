"""How patient a worker is, and what it works with."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bridge.ledger.port import DeadLetters, Ledger
from bridge.sources.port import Source
from bridge.steps import Observer
from bridge.systems.port import Handler
from bridge.tracing.port import NullTracer, Tracer
from bridge.vitals import Vitals

# How much longer than after a failure the wait of a job may get over which the server is lost again and again; and its growth.
_SUSPECT_TIMES = 5.0
_SUSPECT_GROWTH = 4.0
# Of the time since it was first taken, and in seconds.
_HELD_UP_SHARE = 0.1
_LONGEST_HELD_UP = 300.0


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Full-jitter exponential back-off (AWS Architecture Blog, 2015): any time between nothing and a growing bound."""

    # Seconds: the bound after the first failure.
    base: float = 1.0
    # Seconds: what the bound never exceeds.
    limit: float = 60.0
    # How many times as large the bound is after each further failure.
    growth: float = 2.0
    random: random.Random = field(default_factory=random.SystemRandom, compare=False)

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return self.random.uniform(0.0, min(self.limit, self.base * self.growth ** min(failures - 1, 30)))


@dataclass(frozen=True, kw_only=True)
class WorkPolicy:
    """How patient a worker is. Times in seconds."""

    # Jobs at once.
    concurrency: int = 2
    # How long a dead worker's job is left alone.
    lease_seconds: float = 60.0
    # Failed tries after which a job is given up.
    max_attempts: int = 5
    # Workers in a row that may die or freeze over a job without getting further, before it is given up.
    max_interruptions: int = 50
    # Losses of the inference server over a job, in a row and without getting further, after which it is given up.
    max_server_losses: int = 5
    backoff: Backoff = Backoff()
    # How long a poll for messages may take.
    poll_seconds: float = 1.0
    # The longest pause while the server is down or full: short, so that its return is soon noticed.
    overload_seconds: float = 10.0
    # How long running jobs may go on once the worker is told to stop.
    drain_seconds: float = 25.0
    # How long cancelled work may take to come to its end.
    cancel_seconds: float = 5.0

    @property
    def beat_seconds(self) -> float:
        """Leases are renewed at a third of their length."""
        return self.lease_seconds / 3

    def held_up_seconds(self, asked: float, age: float) -> float:
        """How long a job waits for what only it and its like need: a tenth of the time since it was first taken, spread, and bounded."""
        return max(asked, min(_HELD_UP_SHARE * age, _LONGEST_HELD_UP)) + self.backoff.delay(1)

    @property
    def suspect_backoff(self) -> Backoff:
        """For jobs over which the server is lost: long enough in the end for others to get something done between two deaths."""
        return replace(self.backoff, limit=_SUSPECT_TIMES * self.backoff.limit, growth=_SUSPECT_GROWTH)


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What a worker works with."""

    # Names this worker in the ledger.
    name: str
    source: Source
    ledger: Ledger
    dead_letters: DeadLetters
    handler: Handler
    observer: Observer
    policy: WorkPolicy
    # Called right after a commit that may have left messages in the outbox.
    committed: Callable[[], None]
    # Where loops and heartbeats leave their signs of life.
    vitals: Vitals = field(default_factory=Vitals)
    # Who follows the work.
    tracer: Tracer = field(default_factory=NullTracer)
