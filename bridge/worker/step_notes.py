"""The steps that one delivery takes, timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bridge.job import Delivery, Job
from bridge.steps import MOMENTS, Step, StepTaken


class StepNotes:
    """Times each step of a delivery from the one before it, and tells whoever wants to know."""

    def __init__(self, delivery: Delivery, *, tell: Sequence[Callable[[StepTaken], None]]) -> None:
        """`tell`: called for each step, in this order. The delivery has just been received."""
        self._job_key = ""
        # The job's, once it is known.
        self.system = ""
        self._source = delivery.source
        self._tell = tell
        self._received_at = self._last_step = time.monotonic()

    def belong_to(self, job: Job) -> None:
        """The message has been read: from now on the steps are those of a job."""
        self._job_key, self.system = job.key, job.system

    def took(self, step: Step, *, outcome: str = "", fallback: str = "") -> None:
        """The delivery has taken a step."""
        now = time.monotonic()
        taken = StepTaken(
            step=step,
            job_key=self._job_key,
            system=self.system,
            seconds=now - self._last_step,
            outcome=outcome,
            source=self._source,
            since_receipt=now - self._received_at,
            fallback=fallback,
        )
        if step not in MOMENTS:
            self._last_step = now
        for tell in self._tell:
            tell(taken)
