"""One version of a model that serves: admits its requests, has them run in batches and answers them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from inference_server.errors import DeadlineExceeded, InferenceError, Overloaded, Unavailable
from inference_server.scheduler.dispatch.admission import Admission
from inference_server.scheduler.dispatch.dispatcher import Dispatcher
from inference_server.scheduler.dispatch.executor import Ran
from inference_server.scheduler.dispatch.queue import WaitingLine
from inference_server.scheduler.dispatch.rate_limiter import RateLimiter
from inference_server.scheduler.dispatch.work import Answer, Work
from inference_server.scheduler.loading.loader import LoadedModel
from inference_server.scheduler.metrics.scheduler import ModelMetrics, outcome_of
from inference_server.scheduler.metrics.statistics import CANCELED, Statistics, reason_of
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import InferenceRequest, InferenceResponse
from inference_server.scheduler.response_cache import ModelCache, ResponseCache
from inference_server.scheduler.tracing import trace_batch, trace_refusal, trace_waited_in_vain
from inference_server.scheduler.validation import Signature


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all models of a server share."""

    # Room for requests and their bytes.
    admission: Admission
    # Who may run now, among instances that hold the same resources.
    limiter: RateLimiter
    # Answers that are kept.
    cache: ResponseCache
    options: SchedulingOptions


class ServedModel:
    """A loaded version with its queue and instances. Everything but the engines' runs happens on the event loop, so nothing is locked."""

    def __init__(
        self,
        loaded: LoadedModel,
        shared: Shared,
        *,
        metrics: ModelMetrics,
        cache: ModelCache | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        """`statistics`: those of the model that this one is a part of."""
        facts = loaded.facts
        self.facts = facts
        self.config = loaded.config
        self.labels = loaded.labels
        self.statistics = statistics or Statistics(model=facts.name, version=facts.version)
        self._batching = facts.batching
        self._signature = Signature(facts.name, inputs=facts.inputs, outputs=facts.outputs, max_batch_size=facts.max_batch_size)
        self._line = WaitingLine(facts.batching, weights=shared.options.client_weights)
        # How many wait. Metrics keep it when the model is gone: it holds on to no engine.
        self.waiting: Callable[[], int] = self._line.__len__
        metrics.waiting.set_function(self.waiting)
        # Kept, for to ask for it takes a call of the system.
        self._loop = asyncio.get_running_loop()
        self._admission = shared.admission
        self._metrics = metrics
        self._dispatcher = Dispatcher(loaded, self._line, self, limiter=shared.limiter, metrics=metrics)
        self._cache = cache
        self._memory = loaded.memory
        self._open = True
        # Set while nothing waits or runs.
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def pending(self) -> int:
        """Requests that were admitted and whose run has not begun."""
        return self.waiting()

    @property
    def caches(self) -> bool:
        """Whether answers are kept."""
        return self._cache is not None

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Run one request, batched with others, or give the answer that was kept of an equal one; see `port.Inference`."""
        if self._cache is None or not self._open:
            return await self._infer(request)
        return await self._cache.through(request, self._infer, statistics=self.statistics, found=partial(self._found, request))

    def _found(self, request: InferenceRequest) -> None:
        """A kept answer answers."""
        self._metrics.ended("success")
        if request.caller.trace is not None:
            request.caller.trace.event("cache_hit", {"lamina.model": self.facts.name})

    async def _infer(self, request: InferenceRequest) -> InferenceResponse:
        try:
            work = self._admit(request)
        except InferenceError as error:
            trace_refusal(request.caller.trace, error)
            self._metrics.ended(outcome_of(error))
            self.statistics.failed(0.0, reason=reason_of(error))
            raise
        try:
            answer = await work.future
        except InferenceError as error:
            self._metrics.ended(outcome_of(error))
            self.statistics.failed(time.monotonic() - work.admitted, reason=reason_of(error))
            raise
        except asyncio.CancelledError:
            self._metrics.ended("cancelled")
            self.statistics.failed(time.monotonic() - work.admitted, reason=CANCELED)
            raise
        finally:
            self._forget(work)
        self._metrics.ended("success")
        self.statistics.succeeded(answer, rows=work.rows, admitted=work.admitted, now=time.monotonic())
        return self._response(work, answer)

    async def close(self, *, grace_seconds: float) -> None:
        """Refuse what comes, finish what is there within the grace, and end the instances; may be called again with another grace.

        A run that has begun is waited for beyond the grace, within reason: no runtime can be interrupted.
        """
        self._open = False
        try:
            await asyncio.wait_for(self._empty.wait(), grace_seconds)
        except TimeoutError:
            for work in list(self._line):
                _fail(work, Unavailable(f"model {self.facts.name} was stopped before the request's turn came; try again"))
                self._withdraw(work)
        if self._cache:
            self._cache.close()
        await self._dispatcher.close()
        self._memory.release()

    def _admit(self, request: InferenceRequest) -> Work:
        name, caller, now = self.facts.name, request.caller, time.monotonic()
        if not self._open:
            raise Unavailable(f"model {name} is being stopped; try again")
        self.facts.check_device(caller.device)
        measured = self._signature.check(request.inputs, request.outputs)
        if caller.deadline is not None and caller.deadline <= now:
            raise DeadlineExceeded(f"the deadline passed before the request reached model {name}")
        level = self._batching.level(caller.priority)
        self._bound(level, now)
        self._admission.enter(measured.size, now)
        work = Work(
            inputs=request.inputs,
            outputs=tuple(request.outputs),
            rows=measured.rows,
            size=measured.size,
            bucket=measured.bucket,
            level=level,
            client=caller.client,
            deadline=caller.deadline,
            admitted=now,
            future=self._loop.create_future(),
            trace=caller.trace,
            device=caller.device,
        )
        self.statistics.admitted()
        self._line.push(work)
        self._empty.clear()
        self._watch(work)
        self._dispatcher.look()
        return work

    def _bound(self, level: int, now: float) -> None:
        """The model's own bound, as `max_queue_size` of its queue policy says."""
        bound = self._batching.policy_of(level).max_requests
        if bound and self._line.waiting(level) >= bound:
            seconds = self._admission.retry_after(1, now)
            raise Overloaded(
                f"{bound} requests wait for model {self.facts.name}, which is its limit; try again in {seconds:.2f} s", retry_after=seconds
            )

    def _watch(self, work: Work) -> None:
        """Set the timers that take a request out of the queue: its own deadline, and its queue policy's."""
        if work.deadline is not None:
            work.timers.append(self._loop.call_later(work.deadline - work.admitted, self._expire, work))
        timeout = self._batching.policy_of(work.level).timeout_seconds
        if timeout is not None:
            work.timers.append(self._loop.call_later(timeout, self._overdue, work))

    def _expire(self, work: Work) -> None:
        begun = work not in self._line
        waited = "while it ran on" if begun else "in the queue of"
        _fail(work, DeadlineExceeded(f"the deadline passed {waited} model {self.facts.name}", begun=begun))
        self._withdraw(work)

    def _overdue(self, work: Work) -> None:
        """The queue policy's time is up: fail, or go behind all others."""
        if work not in self._line:
            return
        policy = self._batching.policy_of(work.level)
        if not policy.delays:
            _fail(
                work,
                DeadlineExceeded(f"waited for model {self.facts.name} longer than its queue policy allows, {policy.timeout_seconds} s"),
            )
            self._withdraw(work)
            return
        self._line.remove(work)
        work.level = self._batching.levels + 1
        self._line.push(work)

    def _forget(self, work: Work) -> None:
        """The caller is gone, with or without an answer."""
        for timer in work.timers:
            timer.cancel()
        self._withdraw(work)

    def _withdraw(self, work: Work) -> None:
        """Take a request out of the queue if it still waits; one that runs stays until its batch ends."""
        if work in self._line:
            self._line.remove(work)
            self._release(work, answered=False)
            trace_waited_in_vain(self.facts, work)

    def _release(self, work: Work, *, answered: bool) -> None:
        self._admission.leave(work.size, time.monotonic(), answered=answered)
        if not self._line and self._dispatcher.is_idle:
            self._empty.set()

    # What the dispatcher tells its owner.

    def turned_away(self, work: Work, error: DeadlineExceeded) -> None:
        """See `dispatcher.Owner`."""
        _fail(work, error)
        self._release(work, answered=False)
        trace_waited_in_vain(self.facts, work)

    def ended(self, batch: Sequence[Work], ran: Ran) -> None:
        """See `dispatcher.Owner`."""
        trace_batch(self.facts, batch, ran)
        for run in ran.runs:
            self.statistics.ran(run)
        for work, outcome in zip(batch, ran.outcomes, strict=True):
            if isinstance(outcome, InferenceError):
                _fail(work, outcome)
            elif outcome is not None:
                if outcome.fallback:
                    self._metrics.fell_back(outcome.fallback)
                if not work.future.done():
                    work.future.set_result(outcome)
            self._release(work, answered=True)

    def _response(self, work: Work, answer: Answer) -> InferenceResponse:
        queue_seconds = max(answer.started - work.admitted, 0.0)
        self._metrics.queue_seconds.observe(queue_seconds)
        return InferenceResponse(
            model=self.facts.name,
            version=self.facts.version,
            outputs=answer.outputs,
            engine=answer.engine,
            queue_seconds=queue_seconds,
            compute_seconds=answer.compute_seconds,
            fallback=answer.fallback,
        )


def _fail(work: Work, error: InferenceError) -> None:
    if not work.future.done():
        work.future.set_exception(error)
