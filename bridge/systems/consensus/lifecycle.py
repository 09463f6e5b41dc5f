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


class Lifecycle:
    """Tells the events; as an observer it learns what was committed and what was skipped."""

    def __init__(self) -> None:
        # What is to be told once the end of a run is in the ledger.
        self._ends: dict[str, Mapping[str, Any]] = {}

    def tell(self, event: str, run_id: str, **fields: Any) -> None:
        """Write one event."""
        _log.info(event, lifecycle_event=event, run_id=run_id, **fields)

    def expect_end(self, run_id: str, **fields: Any) -> None:
        """What the last event of a run tells, once it is committed."""
        self._ends[run_id] = fields

    def on_step(self, taken: StepTaken) -> None:
        """Tell what the ledger says: the run's end, or that there is nothing left to do."""
        if taken.system != SYSTEM:
            return
        if taken.step is Step.REFUSED and taken.outcome in _ENDED:
            self.tell("idempotent_skip", taken.job_key, status=_ENDED[taken.outcome])
        elif taken.step is Step.COMMITTED:
            fields = self._ends.pop(taken.job_key, {})
            event = "job_completed" if taken.outcome == SUCCEEDED else "job_failed"
            if fields.get("skipped"):
                event, fields = "idempotent_skip", {"status": fields["skipped"]}
            self.tell(event, taken.job_key, job_latency_ms=round(1000 * taken.since_receipt, 1), **fields)
        elif taken.step in {Step.RELEASED, Step.RETURNED}:
            self._ends.pop(taken.job_key, None)
