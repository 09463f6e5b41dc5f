"""What a traced request passes through, as spans: its queue, its batch and the engine's runs.

They are written down when they are over, from times that are taken anyway: a request that is not traced costs a comparison with None.
Nothing that a caller sent is told but names of models: errors are told by their class.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from inference_server.errors import InferenceError
from inference_server.scheduler.dispatch.executor import Ran
from inference_server.scheduler.dispatch.work import Answer, Work
from inference_server.scheduler.port import ModelFacts
from inference_server.scheduler.spans import Attributes, Span


def trace_refusal(span: Span | None, error: InferenceError) -> None:
    """A request was not let in."""
    if span is not None:
        limit = {"lamina.limit": error.limit} if error.limit else {}
        span.event("refused", {"error.type": type(error).__name__, **limit})


def trace_waited_in_vain(facts: ModelFacts, work: Work) -> None:
    """A request left the queue without a run: its time was up, its caller went away, or the model was stopped."""
    if work.trace is not None:
        error = "CancelledError" if work.future.cancelled() else _error_of(work.future.exception() if work.future.done() else None)
        work.trace.child("queue", start=work.admitted, attributes=_model(facts)).end(error=error or "CancelledError")


def trace_batch(facts: ModelFacts, batch: Sequence[Work], ran: Ran) -> None:
    """A batch ended. The first request that is traced has the engine's runs in its own trace, where all the others link to."""
    traced = [(work, work.trace, outcome) for work, outcome in zip(batch, ran.outcomes, strict=True) if work.trace is not None]
    if not traced:
        return
    answers = _answers(ran)
    now = time.monotonic()
    started = min([now - ran.compute_seconds, *(answer.started for answer in answers)])
    attributes = {**_model(facts), "lamina.requests": len(batch), "lamina.rows": sum(work.rows for work in batch)}
    shared: Span | None = None
    for work, span, outcome in traced:
        span.child("queue", start=work.admitted, attributes=_model(facts)).end(at=started)
        links = [shared] if shared else [span for _, span, _ in traced]
        part = span.child("batch", start=started, attributes=attributes, links=links)
        if shared is None:
            shared = part
            _trace_runs(part, facts, answers, started=started, failed=not answers)
        fallback = getattr(outcome, "fallback", "")
        if fallback:
            span.event("fallback", {"lamina.fallback": fallback})
        part.end(at=now, error=_error_of(outcome if isinstance(outcome, InferenceError) else None))


def _trace_runs(batch: Span, facts: ModelFacts, answers: Sequence[Answer], *, started: float, failed: bool) -> None:
    if failed:
        batch.child("engine", start=started, attributes={"lamina.engine": facts.engine}).end(error="ModelFailed")
    for answer in answers:
        run, at = answer.run, answer.started
        attributes: dict[str, str | int] = {"lamina.engine": answer.engine, "lamina.rows": run.rows}
        if answer.fallback:
            attributes["lamina.fallback"] = answer.fallback
        span = batch.child("engine", start=at, attributes=attributes)
        span.event("inputs_joined", {}, at=at + run.input_seconds)
        span.event("outputs_computed", {}, at=at + run.input_seconds + run.infer_seconds)
        span.end(at=at + run.input_seconds + run.infer_seconds + run.output_seconds)


def _answers(ran: Ran) -> list[Answer]:
    """One answer of each run."""
    answered = (outcome for outcome in ran.outcomes if outcome is not None and not isinstance(outcome, InferenceError))
    return list({id(answer.run): answer for answer in answered}.values())


def _model(facts: ModelFacts) -> Attributes:
    return {"lamina.model": facts.name, "lamina.model_version": facts.version}


def _error_of(error: BaseException | None) -> str:
    return type(error).__name__ if error is not None else ""
