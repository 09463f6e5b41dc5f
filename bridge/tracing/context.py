"""The context of a trace, as W3C writes it, and that of the work that runs."""

from __future__ import annotations

import re
from contextvars import ContextVar

from bridge.tracing.port import Carrier

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
_VALID = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]*)?")
_STATE = re.compile(r"[\x20-\x7e]{1,512}")

# Of the job that the running task works on. Tasks that it starts inherit it.
CURRENT: ContextVar[Carrier] = ContextVar("lamina_trace", default={})  # noqa: B039  (never changed in place)


def carrier(traceparent: object, tracestate: object = "") -> Carrier:
    """The headers of a trace; empty when `traceparent` is none. A `tracestate` that is not right is left out."""
    if not isinstance(traceparent, str) or not _VALID.fullmatch(traceparent.strip()):
        return {}
    found = {TRACEPARENT: traceparent.strip()}
    if isinstance(tracestate, str) and _STATE.fullmatch(tracestate):
        found[TRACESTATE] = tracestate
    return found
