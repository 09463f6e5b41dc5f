"""Gives what waits for a version to its instances, in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

import structlog

from inference_server.errors import DeadlineExceeded
from inference_server.scheduler.dispatch.batcher import Batcher
from inference_server.scheduler.dispatch.executor import Instance, Ran
from inference_server.scheduler.dispatch.forecast import Forecast
from inference_server.scheduler.dispatch.pace import Pace
from inference_server.scheduler.dispatch.queue import WaitingLine
from inference_server.scheduler.dispatch.rate_limiter import RateLimiter
from inference_server.scheduler.dispatch.side_by_side import may_join, placed_beside, share_of
from inference_server.scheduler.dispatch.work import Work
from inference_server.scheduler.loading.loader import LoadedModel
from inference_server.scheduler.metrics.scheduler import ModelMetrics

# How long a run that has begun is waited for when its model is stopped.
_RUN_SECONDS = 30.0
# A shorter run is not worth halving: to begin one costs as much as a few of its rows.
_LONG_RUN_SECONDS = 0.01
_log = structlog.get_logger()


class Owner(Protocol):
    """Whose requests they are: told of each that has left the line."""

    def ended(self, batch: Sequence[Work], ran: Ran) -> None:
        """A batch was run."""

    def turned_away(self, work: Work, error: DeadlineExceeded) -> None:
        """A request was taken out of the line and not run: nobody waits for it, or its deadline is too near."""


class Dispatcher:
    """The instances of one version, and what forms batches for them. All but the engines' runs happens on the event loop."""

    def __init__(self, loaded: LoadedModel, line: WaitingLine, owner: Owner, *, limiter: RateLimiter, metrics: ModelMetrics) -> None:
        facts = loaded.facts
        self._facts = facts
        self._line = line
        self._owner = owner
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._batcher = Batcher(facts.batching, max_batch_size=facts.max_batch_size)
        self._forecast = Forecast()
        beside = placed_beside(loaded)
        placed = (*loaded.placed, beside) if beside else loaded.placed
        batched = facts.max_batch_size > 0
        self._instances = [
            Instance(each, name=f"{facts.name}-{facts.version}-{number}", batched=batched) for number, each in enumerate(placed)
        ]
        # That which may run a second batch on one of the first one's two cores.
        self._beside = self._instances[-1] if beside else None
        # The batches that run.
        self._running: dict[Instance, Sequence[Work]] = {}
        self._idle = list(self._instances)
        self._seat = limiter.seat(loaded.placed, self._dispatch)
        # Whether a second batch is worth a core.
        self._pace = Pace()
        self._look_again: asyncio.Handle | None = None
        # Whether that is after a delay, rather than in the next turn of the event loop.
        self._looks_later = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return len(self._idle) == len(self._instances)

    @property
    def _runs_long(self) -> bool:
        return self._forecast.usual_seconds >= _LONG_RUN_SECONDS

    def look(self, delay: float = 0.0) -> None:
        """Look for a batch when the requests that arrive in this turn of the event loop are all there, or after a delay."""
        if self._look_again is not None:
            if delay or not self._looks_later:
                return
            self._look_again.cancel()
        self._looks_later = delay > 0
        self._look_again = self._loop.call_later(delay, self._dispatch) if delay else self._loop.call_soon(self._dispatch)

    async def close(self) -> None:
        """End the instances after what they run now, within reason: no runtime can be interrupted."""
        try:
            async with asyncio.timeout(_RUN_SECONDS), asyncio.TaskGroup() as group:
                for instance in self._instances:
                    group.create_task(instance.close())
        except TimeoutError:
            _log.error("run_does_not_end", model=self._facts.name, version=self._facts.version, seconds=_RUN_SECONDS)
        else:
            # Engines are freed now, not when the garbage collector finds that this and its owner refer to each other.
            self._instances.clear()
            self._idle.clear()
            self._beside = None
        self._seat.close()

    def _dispatch(self, ended: Sequence[Work] = ()) -> None:
        """Give batches to idle instances; `ended`: a long run's, see `Batcher.form` for `returning`."""
        self._look_again = None
        returning = sum(work.rows for work in ended) if ended else 0
        while self._line and self._idle:
            running = [work for batch in self._running.values() for work in batch] if self._beside else []
            share = share_of(self._line, (*running, *ended)) if self._beside and self._runs_long else 0
            pairs = share > 0 and self._pace.pairs
            instance = self._free(joins=pairs and may_join(share, sum(work.rows for work in running)))
            if instance is None:
                break
            now = time.monotonic()
            formed = self._batcher.form(self._line, now, returning=returning, share=share if pairs else 0)
            if not formed.batch:
                if formed.again_at is not None:
                    self.look(max(formed.again_at - now, 0.0001))
                break
            self._start(instance, formed.batch, now, much_waits=share > 0)

    def _free(self, *, joins: bool) -> Instance | None:
        """An idle instance that may run now; `joins`: whether the second one may, beside the first."""
        for instance in reversed(self._idle):
            if (joins or instance is not self._beside) and self._seat.may_run(instance.placed):
                return instance
        return None

    def _start(self, instance: Instance, taken: Sequence[Work], now: float, *, much_waits: bool) -> None:
        """Run what was taken out of the line, but for requests that nobody waits for and those whose deadline timer is late."""
        ends = now + self._forecast.seconds
        late = [work for work in taken if work.future.done() or (work.deadline is not None and work.deadline <= ends)]
        batch = tuple(work for work in taken if work not in late) if late else tuple(taken)
        if batch:
            self._idle.remove(instance)
            self._seat.begin(instance.placed)
            beside = bool(self._running) if much_waits else None
            self._running[instance] = batch
            instance.start(batch, lambda ran: self._finish(instance, batch, ran, began_beside=beside), waits=self._runs_long)
            self._metrics.batch_rows.observe(sum(work.rows for work in batch))
        for work in late:
            self._owner.turned_away(work, self._too_late(work, now))

    def _too_late(self, work: Work, now: float) -> DeadlineExceeded:
        if work.deadline is None or work.deadline <= now:
            return DeadlineExceeded(f"the deadline passed in the queue of model {self._facts.name}")
        shortest = self._forecast.seconds
        self._forecast.turned_away(now)
        return DeadlineExceeded(
            f"{work.deadline - now:.3f} s before the deadline it was not begun: "
            f"model {self._facts.name} lately took {shortest:.3f} s or more"
        )

    def _finish(self, instance: Instance, batch: Sequence[Work], ran: Ran, *, began_beside: bool | None) -> None:
        """Give the instance its next batch and hand over what the last one ended with, in this order: the cores would wait meanwhile.

        `began_beside`: whether another batch ran when it began; None where too little waited to tell anything.
        """
        self._idle.append(instance)
        del self._running[instance]
        if began_beside is not None and len(ran.runs) == 1:
            size = sum(work.cost for work in batch)
            self._pace.ran(size, ran.compute_seconds, began_beside=began_beside, ended_beside=bool(self._running))
        for run in ran.runs:
            self._forecast.ran(run.input_seconds + run.infer_seconds + run.output_seconds, time.monotonic())
        self._seat.end(instance.placed, more=bool(self._line))
        self._dispatch(batch if ran.compute_seconds >= _LONG_RUN_SECONDS else ())
        self._metrics.compute_seconds.observe(ran.compute_seconds)
        self._owner.ended(batch, ran)
