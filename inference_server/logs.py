"""Logs as JSON, one object a line, on standard error."""

from __future__ import annotations

import logging
import sys

import structlog

_CLASSES = ("info", "warning", "error")


class LogLevels:
    """Which events are logged; changed while the server runs."""

    def __init__(self, level: str) -> None:
        """`level`: the least that is logged: debug, info, warning or error."""
        least = logging.getLevelNamesMapping()[level.upper()]
        # Above 0, what is of use to those who look for a defect is logged too.
        self.verbose = int(least <= logging.DEBUG)
        self.enabled = {name: least <= logging.getLevelNamesMapping()[name.upper()] for name in _CLASSES}

    def least(self) -> int:
        """The least level that any event may have."""
        if self.verbose:
            return logging.DEBUG
        return min((logging.getLevelNamesMapping()[name.upper()] for name, on in self.enabled.items() if on), default=logging.CRITICAL)

    def change(self, *, verbose: int, **enabled: bool) -> None:
        """Set all of them: `verbose`, and whether each of info, warning and error is logged."""
        self.verbose = verbose
        self.enabled = {name: enabled[name] for name in _CLASSES}
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(self.least()))

    def keep(self, logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Drop events of a class that is off while a lesser one is on; a processor of structlog."""
        if not self.enabled.get("error" if method == "exception" else method, True):
            raise structlog.DropEvent
        return event


def configure_logging(level: str) -> LogLevels:
    """Send structlog's events and other libraries' warnings to standard error."""
    levels = LogLevels(level)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[levels.keep, *shared, structlog.processors.JSONRenderer(ensure_ascii=False)],
        wrapper_class=structlog.make_filtering_bound_logger(levels.least()),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    rendered: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=rendered))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    return levels
