"""The consensus system's work: one run, from its first unfinished step to its decision."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from bridge.errors import OverloadError, PermanentError, TransientError
from bridge.job import Delivery, Job, Outcome
from bridge.llm.port import LanguageModel
from bridge.records.consensus import ConsensusRecords, RunRecord
from bridge.systems.consensus import messages
from bridge.systems.consensus.lifecycle import Lifecycle
from bridge.systems.consensus.options import RunOptions
from bridge.systems.consensus.personas import load_prompts
from bridge.systems.consensus.run import RunInProgress
from bridge.systems.consensus.steps import STEPS
from bridge.systems.port import Context

_ENDED = frozenset({"completed", "failed"})


class ConsensusHandler:
    """Works on runs whose rows the platform has written; the row is the truth, the message only names it."""

    def __init__(self, *, records: ConsensusRecords, model: LanguageModel, options: RunOptions) -> None:
        """Raises `ConfigurationError` when there are no prompts of the version that is set."""
        self._records = records
        self._model = model
        self._options = options
        self._prompts = load_prompts(options.version)
        self.lifecycle = Lifecycle()

    @property
    def system(self) -> str:
        """Its name."""
        return messages.SYSTEM

    def recognises(self, delivery: Delivery) -> bool:
        """Whether a message is in the pipeline's form."""
        return messages.is_request(delivery)

    def parse(self, delivery: Delivery) -> Job:
        """Read a message. Raises `PoisonError`."""
        return messages.job_of(delivery)

    async def handle(self, job: Job, context: Context) -> Outcome:
        """Do what is left of the run. Raises `TransientError`, `OverloadError`, `PermanentError`, `ConfigurationError`."""
        run = await self._found(job.key)
        if run.status in _ENDED:
            # By the worker that we replace, or before the ledger was emptied.
            self.lifecycle.expect_end(run.id, skipped=run.status.upper())
            return Outcome(succeeded=True, result={"status": run.status, "skipped": True})
        self.lifecycle.begins(run.id, run_type=run.run_type, priority=run.priority, retry_count=run.retry_count)
        limit = asyncio.timeout(self._options.job_seconds)
        try:
            async with limit:
                return await self._work_on(run, job.request, context)
        except TimeoutError as error:
            if not limit.expired():
                raise
            seconds = self._options.job_seconds
            self.lifecycle.tell("job_timeout", run.id, job_elapsed_seconds=seconds, timeout_seconds=seconds)
            raise PermanentError(f"the run took longer than {seconds:g} s (WORKER_JOB_TIMEOUT_SECONDS)") from error

    def failure(self, job: Job, reason: str) -> Outcome:
        """The outcome of a run that is given up."""
        self.lifecycle.expect_end(job.key, error=reason)
        result = {"error": "the run could not be completed", "reason": reason}
        beginnings = {step.name: step.failure for step in STEPS}
        return Outcome(succeeded=False, result=result, writes=(self._records.failed(job.key, reason=reason, beginnings=beginnings),))

    async def _work_on(self, run: RunRecord, edits: Mapping[str, Any], context: Context) -> Outcome:
        work = RunInProgress(
            run,
            context=context,
            records=self._records,
            model=self._model,
            prompt_set=self._prompts,
            options=self._options,
            lifecycle=self.lifecycle,
        )
        await work.begin()
        parent = await self._parent(run)
        proposal = await work.expand(parent, edits)
        decision, writes = await work.decide(await work.review(proposal, parent))
        result = {
            "status": "completed",
            "decision": decision.decision,
            "overall_weighted_confidence": decision.overall_weighted_confidence,
            "usage": work.usage(),
        }
        confidence = round(decision.overall_weighted_confidence, 4)
        self.lifecycle.expect_end(run.id, decision=decision.decision, confidence=confidence)
        return Outcome(succeeded=True, result=result, writes=writes)

    async def _found(self, run_id: str) -> RunRecord:
        run = await self._row(run_id)
        if run is None:
            raise TransientError(f"there is no run {run_id} in the platform's tables; its row is written before its message is sent")
        return run

    async def _row(self, run_id: str) -> RunRecord | None:
        try:
            return await self._records.find(run_id)
        except TransientError as error:
            # The work has not failed: it costs no attempt.
            raise OverloadError(str(error)) from error

    async def _parent(self, run: RunRecord) -> RunRecord | None:
        """The run that a revision revises. Raises `PermanentError` when it cannot be revised."""
        if run.run_type != "revision":
            return None
        parent = await self._row(run.parent_run_id) if run.parent_run_id else None
        if parent is None or parent.proposal is None:
            raise PermanentError(
                f"the run {run.id} is a revision, but its parent {run.parent_run_id or '(none)'} has no proposal to revise"
            )
        return parent
