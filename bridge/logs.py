"""Structured logs, and the observer that writes each step into them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bridge.steps import SUCCEEDED, Step, StepTaken


@contextmanager
def _without_rich() -> Iterator[None]:
    """Spare rich, 4 MB, which structlog loads for tracebacks in colour; ours are JSON. Where tables are drawn it is loaded all the same."""
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["rich"]


with _without_rich():
    import structlog

_ENCODER = json.JSONEncoder(ensure_ascii=False, default=repr)
# Steps of every poll or heartbeat, and those that only lead to the next; told only when asked for.
_QUIET = frozenset({Step.RECEIVED, Step.READ, Step.RENEWED, Step.CHECKPOINTED, Step.ACKNOWLEDGED, Step.TAKEN, Step.MARKED})


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
        processors=[*shared, tracebacks, structlog.processors.JSONRenderer(_json)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            tracebacks,
            structlog.processors.JSONRenderer(_json),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    # Libraries are heard from warnings up.
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]), force=True)


def _json(event: Any, **_options: Any) -> str:
    # Made once: `json.dumps` with options makes an encoder for each line.
    return _ENCODER.encode(event)


class StepLog:
    """Writes each step with its job and its latency."""

    def __init__(self) -> None:
        """To be made once logging is configured: it asks for the level once, since a job has many steps."""
        log = structlog.get_logger().bind()
        self._write = log.info
        self._write_quiet = log.debug
        self._tells_quiet = log.is_enabled_for(logging.DEBUG)

    def on_step(self, taken: StepTaken) -> None:
        """Write one line."""
        # That a handler came back with a result is told by the commit right after it.
        quiet = taken.step in _QUIET or (taken.step is Step.HANDLED and taken.outcome == SUCCEEDED)
        if quiet and not self._tells_quiet:
            return
        facts = {"job": taken.job_key, "system": taken.system, "outcome": taken.outcome, "fallback": taken.fallback}
        known: dict[str, object] = {name: fact for name, fact in facts.items() if fact}
        if taken.step is Step.COMMITTED:
            known["job_ms"] = round(1000 * taken.since_receipt, 2)
        write = self._write_quiet if quiet else self._write
        write("step", step=taken.step.value, latency_ms=round(1000 * taken.seconds, 2), **known)
