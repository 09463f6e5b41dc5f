"""Counts and times of one version of a model since it began to serve, in the terms of the protocol's ModelStatistics."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field

from inference_server.errors import DeadlineExceeded, InferenceError, ModelFailed
from inference_server.scheduler.dispatch.work import Answer, Run

# Why requests fail, in Triton's words: out of time in the queue, left by their caller, in the engine, and all else.
REJECTED, CANCELED, BACKEND, OTHER = REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


def reason_of(error: InferenceError) -> str:
    """Triton's word for why a request failed."""
    if isinstance(error, DeadlineExceeded):
        return OTHER if error.begun else REJECTED
    return BACKEND if isinstance(error, ModelFailed) else OTHER


@dataclass(kw_only=True, slots=True)
class Tally:
    """How often something happened, and how long it took in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """It happened once more."""
        self.count += 1
        self.seconds += seconds


@dataclass(kw_only=True, slots=True)
class Parts:
    """The parts of an execution."""

    compute_input: Tally = field(default_factory=Tally)
    compute_infer: Tally = field(default_factory=Tally)
    compute_output: Tally = field(default_factory=Tally)

    def add(self, run: Run) -> None:
        """It happened once more."""
        self.compute_input.add(run.input_seconds)
        self.compute_infer.add(run.infer_seconds)
        self.compute_output.add(run.output_seconds)


@dataclass(kw_only=True, slots=True)
class Statistics:
    """Counts and times of one version; changed and read on the event loop only."""

    model: str
    version: str
    # Unix time of the last request in seconds; 0 when there was none.
    last_inference: float = 0.0
    # Rows that were run, and batches.
    inference_count: int = 0
    execution_count: int = 0
    # Requests: from admission to the end, and in the queue.
    success: Tally = field(default_factory=Tally)
    # Of the failed ones, those whose caller went away are counted in `cancelled` too.
    fail: Tally = field(default_factory=Tally)
    cancelled: Tally = field(default_factory=Tally)
    # The failed ones by why.
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    queue: Tally = field(default_factory=Tally)
    # Requests that a kept answer was found for, and for which one was looked for in vain: the time of looking and of keeping.
    cache_hit: Tally = field(default_factory=Tally)
    cache_miss: Tally = field(default_factory=Tally)
    # Executions as each request that succeeded saw them, and by rows of the batch.
    parts: Parts = field(default_factory=Parts)
    batches: dict[int, Parts] = field(default_factory=lambda: defaultdict(Parts))

    def admitted(self) -> None:
        """A request was admitted."""
        self.last_inference = time.time()

    def succeeded(self, answer: Answer, *, rows: int, admitted: float, now: float) -> None:
        """A request of that many rows was answered; `admitted` and `now` as `time.monotonic()`."""
        self.inference_count += rows
        self.success.add(now - admitted)
        self.queue.add(max(answer.started - admitted, 0.0))
        self.parts.add(answer.run)

    def found(self, seconds: float) -> None:
        """A request was answered by what was kept."""
        self.last_inference = time.time()
        self.success.add(seconds)
        self.cache_hit.add(seconds)

    def failed(self, seconds: float, *, reason: str) -> None:
        """A request was refused, failed, or its caller went away after so many seconds."""
        self.fail.add(seconds)
        self.failures[reason] += 1
        if reason == CANCELED:
            self.cancelled.add(seconds)

    def ran(self, run: Run) -> None:
        """A batch was run."""
        self.execution_count += 1
        self.batches[run.rows].add(run)
