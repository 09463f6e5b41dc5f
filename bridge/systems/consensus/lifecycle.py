"""The events of a run's life, one JSON line each, under the platform's names in `lifecycle_event`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from bridge.steps import SUCCEEDED, Step, StepTaken
from bridge.systems.consensus.messages import SYSTEM

_log = structlog.get_logger()
# How the platform calls a job that has ended.
_ENDED = {"succeeded": "COMPLETED", "failed": "FAILED"}
# Of so many runs it is known how often they were retried, which their last event tells.
_MOST_BEGUN = 10_000


class Lifecycle:
    """Tells the events; as an observer it learns what was committed and what was skipped."""

    def __init__(self) -> None:
        # What is to be told once the end of a run is in the ledger.
        self._ends: dict[str, Mapping[str, Any]] = {}
        # How often each run that was begun has been retried.
        self._retries: dict[str, int] = {}

    def tell(self, event: str, run_id: str, **fields: Any) -> None:
        """Write one event."""
        _log.info(event, lifecycle_event=event, run_id=run_id, **fields)

    def begins(self, run_id: str, *, run_type: str, priority: str, retry_count: int) -> None:
        """A run is taken up."""
        self._retries.pop(run_id, None)
        self._retries[run_id] = retry_count
        if len(self._retries) > _MOST_BEGUN:
            del self._retries[next(iter(self._retries))]
        self.tell("job_started", run_id, run_type=run_type, priority=priority, retry_count=retry_count)

    def expect_end(self, run_id: str, **fields: Any) -> None:
        """What the last event of a run tells, once it is committed."""
        self._ends[run_id] = fields

    def on_step(self, taken: StepTaken) -> None:
        """Tell what the ledger says: the run's end, or that there is nothing left to do; and that its message is off the queue."""
        if taken.system != SYSTEM:
            return
        if taken.step is Step.REFUSED and taken.outcome in _ENDED:
            self.tell("idempotent_skip", taken.job_key, status=_ENDED[taken.outcome])
        elif taken.step is Step.COMMITTED:
            self._ended(taken)
        elif taken.step is Step.ACKNOWLEDGED:
            _log.info("message_acknowledged", run_id=taken.job_key, message_latency_ms=_milliseconds(taken))
        elif taken.step in {Step.RELEASED, Step.RETURNED}:
            self._ends.pop(taken.job_key, None)

    def _ended(self, taken: StepTaken) -> None:
        fields = self._ends.pop(taken.job_key, {})
        if fields.get("skipped"):
            self.tell("idempotent_skip", taken.job_key, status=fields["skipped"])
            return
        event = "job_completed" if taken.outcome == SUCCEEDED else "job_failed"
        retries = self._retries.pop(taken.job_key, 0)
        self.tell(event, taken.job_key, job_latency_ms=_milliseconds(taken), **fields, retry_count=retries)


def _milliseconds(taken: StepTaken) -> float:
    return round(1000 * taken.since_receipt, 1)
