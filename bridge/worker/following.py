"""The trace of one delivery and its job."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from bridge.envelopes import tracing
from bridge.job import Delivery, Event, Job
from bridge.steps import MOMENTS, StepTaken
from bridge.tracing.context import TRACEPARENT
from bridge.tracing.port import Carrier, Facts, Kind, NullTracer, Span, Tracer

_log = structlog.get_logger()
_NOBODY = NullTracer()
# SQS and SNS carry ten attributes: an event's own, three of ours, and these two.
_MOST_OWN_ATTRIBUTES = 5


def traced(event: Event, trace: Carrier) -> Event:
    """An event that tells the trace it belongs to, as long as brokers can carry that too."""
    if not trace or len(event.attributes) > _MOST_OWN_ATTRIBUTES:
        return event
    return replace(event, attributes={**trace, **event.attributes})


class Following:
    """Spans of the receipt, of the job and of each step. The job's trace is the one that the ledger keeps, whoever works on it."""

    def __init__(self, tracer: Tracer, delivery: Delivery) -> None:
        self._tracer = tracer
        self._delivery = delivery
        self._began = time.time()
        # What the message says.
        self._incoming = tracing.read(delivery)
        self._receipt = self._received(self._incoming)
        self._job: Span | None = None
        self._steps: list[tuple[StepTaken, float]] = []

    @property
    def trace(self) -> Carrier:
        """What the ledger is to keep with the job, unless it keeps a trace already."""
        return self._incoming or self._receipt.carrier

    @property
    def carrier(self) -> Carrier:
        """What those who work for the job are to be given."""
        return self._job.carrier if self._job is not None else self.trace

    def claimed(self, job: Job, kept: Carrier, *, fence: int) -> None:
        """The job is ours. `kept`: the trace that the ledger keeps with it."""
        trace = kept or self.trace
        if trace != self.trace:
            # Somebody else has begun the trace: what was begun here is never told.
            self._receipt = self._received(trace)
        self._end_receipt()
        facts: Facts = {"lamina.job.key": job.key, "lamina.system": job.system, "lamina.fence": fence}
        if trace:
            # Where logs and traces meet.
            structlog.contextvars.bind_contextvars(trace_id=trace[TRACEPARENT].split("-")[1])
        self._job = self._tracer.start(f"job {job.system}", parent=trace, facts=facts)

    def took(self, taken: StepTaken) -> None:
        """A step was taken."""
        if not self._tracer.listens:
            return
        self._steps.append((taken, time.time()))
        if self._job is not None:
            self._tell_steps(self._job.carrier)

    def ended(self, outcome: str, *, failure: str = "") -> None:
        """The delivery has been carried through, or given up."""
        self._end_receipt()
        if self._job is not None:
            self._job.end(failure=failure, facts={"lamina.outcome": outcome})

    def _received(self, parent: Carrier) -> Span:
        delivery = self._delivery
        facts: Facts = {
            "messaging.system": delivery.source,
            "messaging.destination.name": delivery.queue,
            "messaging.message.id": delivery.message_id,
            "messaging.operation.type": "receive",
            "lamina.receive_count": delivery.receive_count,
        }
        try:
            return self._tracer.start(f"receive {delivery.queue}", parent=parent, kind=Kind.CONSUMER, facts=facts, at=self._began)
        except Exception as error:  # whoever listens must not stop the work
            _log.warning("tracing_failed", error=f"{type(error).__name__}: {error}")
            self._tracer = _NOBODY
            return _NOBODY.start("", parent=parent)

    def _end_receipt(self) -> None:
        if self._job is None:
            self._tell_steps(self._receipt.carrier)
            self._receipt.end()

    def _tell_steps(self, parent: Carrier) -> None:
        for taken, at in self._steps:
            start = at if taken.step in MOMENTS else at - taken.seconds
            facts = {"lamina.outcome": taken.outcome} if taken.outcome else {}
            self._tracer.start(f"step {taken.step.value}", parent=parent, facts=facts, at=start).end(at=at)
        self._steps.clear()
