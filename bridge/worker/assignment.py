"""One delivery, from its receipt to its acknowledgement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import structlog

from bridge.errors import BridgeError, LeaseLostError, NotYetError, OverloadError, PoisonError, TransientError
from bridge.job import Delivery, Job, Outcome, Write
from bridge.ledger.port import Claim, Counted, Refusal, State
from bridge.steps import REDELIVERED, SUCCEEDED, Step
from bridge.tracing.context import CURRENT
from bridge.worker.context import WorkContext
from bridge.worker.fates import Fate, fate_of, unforeseen
from bridge.worker.following import Following, traced
from bridge.worker.heartbeat import Heartbeat
from bridge.worker.policy import Desk
from bridge.worker.step_notes import StepNotes
from bridge.worker.suspicion import blame, with_server_lost
from bridge.worker.throttle import Throttle

_log = structlog.get_logger()
Written = TypeVar("Written")


@dataclass(frozen=True, kw_only=True)
class _Return:
    """A message that goes back to its queue."""

    # Until it may come again, in seconds.
    delay: float
    # Whether a try was made that counts.
    tried: bool = False


class _Interrupted(Exception):
    """The worker stops before the work is done."""


class Assignment:
    """Carries one delivery through all its steps. Whatever goes wrong, the message stays on its queue until the job has ended."""

    def __init__(self, desk: Desk, throttle: Throttle, delivery: Delivery) -> None:
        self._desk = desk
        self._throttle = throttle
        self._delivery = delivery
        self._work: asyncio.Task[Outcome] | None = None
        self._interrupted = False
        self._following = Following(desk.tracer, delivery)
        self._steps = StepNotes(delivery, tell=(self._following.took, desk.observer.on_step))

    def interrupt(self) -> None:
        """Give the work up: cancel it, and leave the job and its message to another worker, with no attempt counted."""
        self._interrupted = True
        self._cancel_work()

    async def run(self) -> None:
        """Carry the delivery through. Never raises but when it is cancelled."""
        with structlog.contextvars.bound_contextvars(message_id=self._delivery.message_id):
            self._steps.took(Step.RECEIVED, outcome=REDELIVERED if self._delivery.receive_count > 1 else "")
            try:
                back = await self._run()
                await self._give_up_message(back)
                self._following.ended("done" if back is None else "returned")
            except LeaseLostError as error:
                self._desk.vitals.fenced(self._steps.system)
                self._following.ended("lost", failure="another worker has taken the job over")
                _log.warning("job_taken_over", reason=str(error))
            except Exception as error:
                self._following.ended("abandoned", failure=type(error).__name__)
                # The ledger or the queue failed us. The leases run out, and the message comes again.
                _log.error("delivery_abandoned", error=f"{type(error).__name__}: {error}", exc_info=not isinstance(error, BridgeError))

    async def _run(self) -> _Return | None:
        """None when the message has done its duty and is acknowledged."""
        job = await self._read()
        if job is None:
            return None
        structlog.contextvars.bind_contextvars(job=job.key, system=job.system)
        try:
            if self._interrupted:
                return _Return(delay=0.0)
            policy = self._desk.policy
            claim = await self._desk.ledger.claim(job, worker=self._desk.name, lease_seconds=policy.lease_seconds)
            if isinstance(claim, Refusal):
                return self._refused(claim)
            self._following.claimed(job, claim.trace, fence=claim.fence)
            job = replace(job, trace=self._following.carrier)
            self._steps.took(Step.CLAIMED)
            heartbeat = Heartbeat(self._desk, self._delivery, claim, lost=self._cancel_work, renewed=lambda: self._steps.took(Step.RENEWED))
            async with heartbeat:
                return await self._work_on(job, claim, heartbeat)
        finally:
            structlog.contextvars.unbind_contextvars("job", "system", "trace_id")

    async def _read(self) -> Job | None:
        """The job that is asked for; None when the message cannot be read, and lies in the dead letters."""
        try:
            job = replace(self._desk.handler.parse(self._delivery), trace=self._following.trace)
        except PoisonError as error:
            reason = str(error)
        except Exception as error:
            _log.exception("parsing_failed")
            reason = f"{type(error).__name__}: {error}"
        else:
            self._steps.belong_to(job)
            self._steps.took(Step.READ)
            return job
        await self._desk.dead_letters.bury(self._delivery, reason=reason)
        self._steps.took(Step.BURIED, outcome="poison")
        self._throttle.untried(self._delivery)
        return None

    def _refused(self, refusal: Refusal) -> _Return | None:
        self._steps.took(Step.REFUSED, outcome=refusal.state.value)
        self._throttle.untried(self._delivery)
        if refusal.state in {State.SUCCEEDED, State.FAILED}:
            return None
        # Not later than a lease: by then whoever has it has renewed it, or is gone.
        policy = self._desk.policy
        return _Return(delay=min(max(refusal.retry_after, policy.beat_seconds / 3), policy.lease_seconds))

    async def _work_on(self, job: Job, claim: Claim, heartbeat: Heartbeat) -> _Return | None:
        if reason := blame(claim, self._desk.policy):
            self._throttle.untried(self._delivery)
            return await self._give_up_job(job, claim, heartbeat, reason)
        context = self._context(claim, heartbeat)
        try:
            outcome = await self._handle(job, context)
        except _Interrupted:
            self._steps.took(Step.HANDLED, outcome="interrupted")
            return await self._release(claim, heartbeat, delay=0.0)
        except Exception as error:
            return await self._end_badly(job, context.claim, heartbeat, error)
        self._steps.took(Step.HANDLED, outcome=_word(outcome))
        try:
            await self._commit(claim, heartbeat, outcome)
        except (LeaseLostError, TransientError):
            raise
        except Exception as error:  # a result that cannot be written, such as one that is not JSON, or that the platform's tables refuse
            return await self._end_badly(job, claim, heartbeat, error)
        self._throttle.relieved()
        return None

    def _context(self, claim: Claim, heartbeat: Heartbeat) -> WorkContext:
        # Work that gets on has got past the server.
        return WorkContext(claim, heartbeat, save=partial(self._save, heartbeat), got_on=self._throttle.relieved)

    async def _handle(self, job: Job, context: WorkContext) -> Outcome:
        CURRENT.set(job.trace)  # this task is the delivery's own
        work = self._work = asyncio.create_task(self._desk.handler.handle(job, context), name=f"job {job.key}")
        if self._interrupted:
            work.cancel()
        try:
            await asyncio.wait({work})
        finally:
            # Only when we are cancelled ourselves is it still running.
            if not work.done():
                work.cancel()
                await asyncio.wait({work}, timeout=self._desk.policy.cancel_seconds)
        if not work.cancelled() and work.exception() is None:
            return work.result()
        if context.heartbeat.lost:
            raise LeaseLostError(f"another worker has taken the job {job.key} over")
        if self._interrupted:
            raise _Interrupted
        if work.cancelled():
            raise TransientError("the work was cancelled from within")
        return work.result()

    async def _end_badly(self, job: Job, claim: Claim, heartbeat: Heartbeat, error: Exception) -> _Return | None:
        fate = fate_of(error)
        self._steps.took(Step.HANDLED, outcome=type(error).__name__)
        if fate is Fate.YIELD:
            _log.info("work_put_back", reason=str(error))
            self._throttle.untried(self._delivery)
            delay = error.retry_after if isinstance(error, NotYetError) else 1.0
            return await self._release(claim, heartbeat, delay=delay, error=str(error))
        _log.warning("work_failed", fate=fate.value, error=f"{type(error).__name__}: {error}", exc_info=unforeseen(error))
        policy = self._desk.policy
        reason = str(error) or type(error).__name__
        if fate is Fate.DROP:
            raise error
        if fate in {Fate.WAIT, Fate.SUSPECT}:
            delay = self._throttle.overloaded(error.retry_after if isinstance(error, OverloadError) else 1.0, policy.backoff)
            if fate is Fate.SUSPECT:
                return await self._put_back_suspect(job, claim, heartbeat, delay=delay, error=reason)
            return await self._release(claim, heartbeat, delay=delay, error=reason, counted=Counted.NOT_TRIED)
        if fate is Fate.HOLD:
            self._throttle.held_up(policy.backoff)
            asked = error.retry_after if isinstance(error, OverloadError) else 1.0
            return await self._release(
                claim, heartbeat, delay=policy.held_up_seconds(asked, claim.age), error=reason, counted=Counted.NOT_TRIED
            )
        tries = claim.attempts + 1
        if fate is Fate.RETRY and tries < policy.max_attempts:
            return await self._release(claim, heartbeat, delay=policy.backoff.delay(tries), error=reason, counted=Counted.ATTEMPT)
        if fate is Fate.RETRY:
            reason = f"given up after {tries} attempts: {reason}"
        else:
            self._throttle.relieved()  # a clear answer comes from a server that has time for one
        await self._commit_failure(job, claim, heartbeat, reason)
        return None

    async def _put_back_suspect(self, job: Job, claim: Claim, heartbeat: Heartbeat, *, delay: float, error: str) -> _Return | None:
        """Give back a job over which the server was lost: later each time, so that other work gets done between, and not for ever."""
        policy, counted = self._desk.policy, with_server_lost(claim)
        if reason := blame(counted, policy):
            return await self._give_up_job(job, claim, heartbeat, reason)
        delay = max(delay, policy.suspect_backoff.delay(counted.server_losses))
        error = f"{error} ({counted.server_losses} in a row; given up at {policy.max_server_losses})"
        return await self._release(claim, heartbeat, delay=delay, error=error, counted=Counted.SERVER_LOST)

    async def _give_up_job(self, job: Job, claim: Claim, heartbeat: Heartbeat, reason: str) -> _Return | None:
        """End a job that seems to kill whoever works on it: else it would do so for ever."""
        _log.error("job_kills_workers", reason=reason)
        await self._commit_failure(job, claim, heartbeat, reason)
        return None

    async def _commit_failure(self, job: Job, claim: Claim, heartbeat: Heartbeat, reason: str) -> None:
        outcome = self._failure(job, reason)
        try:
            await self._commit(claim, heartbeat, outcome, buried=self._delivery, reason=reason)
        except (LeaseLostError, TransientError):
            raise
        except Exception as error:
            # A job must end even when its system's tables refuse to hear of it. What they were to hear may be personal.
            _log.error("failure_writes_refused", error=f"{type(error).__name__}: {error}", exc_info=unforeseen(error))
            await self._commit(claim, heartbeat, replace(outcome, writes=()), buried=self._delivery, reason=reason)

    def _failure(self, job: Job, reason: str) -> Outcome:
        try:
            return self._desk.handler.failure(job, reason)
        except Exception:
            # A job must end even when its system cannot say so.
            _log.exception("failure_event_failed")
            return Outcome(succeeded=False, result={"error": "failed", "reason": reason})

    async def _commit(
        self, claim: Claim, heartbeat: Heartbeat, outcome: Outcome, *, buried: Delivery | None = None, reason: str = ""
    ) -> None:
        outcome = replace(outcome, events=tuple(traced(event, self._following.carrier) for event in outcome.events))
        await self._persist(lambda: self._desk.ledger.finish(claim, outcome, buried=buried, reason=reason), heartbeat)
        heartbeat.release_job()
        self._steps.took(Step.COMMITTED, outcome=_word(outcome), fallback=outcome.fallback)
        self._desk.committed()

    async def _release(
        self, claim: Claim, heartbeat: Heartbeat, *, delay: float, error: str = "", counted: Counted = Counted.SURVIVED
    ) -> _Return:
        release = self._desk.ledger.release
        await self._persist(lambda: release(claim, delay_seconds=delay, error=error, counted=counted), heartbeat)
        heartbeat.release_job()
        self._steps.took(Step.RELEASED)
        return _Return(delay=delay, tried=counted is Counted.ATTEMPT)

    async def _persist(self, write: Callable[[], Awaitable[Written]], heartbeat: Heartbeat) -> Written:
        """Write, and try again while the database is out of reach and the job is still ours: the work is worth more than the wait."""
        policy = self._desk.policy
        deadline = time.monotonic() + 2 * policy.lease_seconds
        failures = 0
        while True:
            try:
                return await write()
            except TransientError as error:
                failures += 1
                pause = min(policy.backoff.delay(failures), policy.beat_seconds)
                if heartbeat.lost or self._interrupted or time.monotonic() + pause > deadline:
                    raise
                _log.warning("write_failed", error=str(error), retry_in=round(pause, 3))
                await asyncio.sleep(pause)

    async def _give_up_message(self, back: _Return | None) -> None:
        if back is None:
            await self._desk.source.acknowledge(self._delivery)
            self._steps.took(Step.ACKNOWLEDGED)
        else:
            await self._desk.source.release(self._delivery, delay_seconds=back.delay, tried=back.tried)
            self._steps.took(Step.RETURNED)

    def _cancel_work(self) -> None:
        if self._work is not None:
            self._work.cancel()

    async def _save(self, heartbeat: Heartbeat, claim: Claim, saved: Mapping[str, Any], writes: Sequence[Write]) -> Claim:
        """Save what a later try can go on from. Raises `LeaseLostError`; `OverloadError` when the ledger stays out of reach."""
        try:
            claim = await self._persist(lambda: self._desk.ledger.checkpoint(claim, saved, writes), heartbeat)
        except TransientError as error:
            # The work has not failed: it costs no attempt.
            raise OverloadError(str(error)) from error
        self._steps.took(Step.CHECKPOINTED)
        return claim


def _word(outcome: Outcome) -> str:
    return SUCCEEDED if outcome.succeeded else "failed"
