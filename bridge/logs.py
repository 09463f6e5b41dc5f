"""Structured logs, and the observer that writes each step into them."""

from __future__ import annotations

import logging
import sys

import structlog

from bridge.steps import Step, StepTaken

# Steps of every poll or heartbeat; told only when asked for.
_QUIET = frozenset({Step.RENEWED, Step.CHECKPOINTED, Step.TAKEN, Step.MARKED, Step.READ})


def configure(level: str) -> None:
    """One JSON object a line on standard error, for our own events and the libraries'."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Without the variables of each frame: they may hold personal data.
    tracebacks = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
    structlog.configure(
        processors=[*shared, tracebacks, structlog.processors.JSONRenderer(ensure_ascii=False)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            tracebacks,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    # Libraries are heard from warnings up.
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]), force=True)


class StepLog:
    """Writes each step with its job and its latency."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()

    def on_step(self, taken: StepTaken) -> None:
        """Write one line."""
        write = self._log.debug if taken.step in _QUIET else self._log.info
        facts = {"job": taken.job_key, "system": taken.system, "outcome": taken.outcome}
        known = {name: fact for name, fact in facts.items() if fact}
        write("step", step=taken.step.value, latency_ms=round(1000 * taken.seconds, 2), **known)
