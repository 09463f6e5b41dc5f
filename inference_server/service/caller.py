"""On whose behalf a call is made, read from gRPC's context."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Any

import grpc.aio

from inference_server.scheduler.port import Caller
from inference_server.service.tracing import current_span

# A client names itself in this metadata; else its address stands for it.
CLIENT_METADATA = "lamina-client"

# The name that the running call's token or certificate proved, which no metadata overrules. Each call runs in a task of its own.
_PROVED: ContextVar[str | None] = ContextVar("proved_name", default=None)

# Characters. What a client calls itself names queues and log lines.
_LONGEST_NAME = 128

# gRPC reports no deadline as one that is centuries away.
_FOREVER_SECONDS = 10 * 365 * 86_400


def caller_of(context: grpc.aio.ServicerContext[Any, Any], priority: int = 0, timeout_seconds: float | None = None) -> Caller:
    """The caller of one RPC. Its deadline is the sooner of gRPC's and `timeout_seconds` from now."""
    waits = [seconds for seconds in (context.time_remaining(), timeout_seconds) if seconds is not None and seconds < _FOREVER_SECONDS]
    return Caller(
        client=client_of(context),
        priority=priority,
        deadline=time.monotonic() + min(waits) if waits else None,
        trace=current_span(),
    )


def client_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The name that was proved, else the client's own name for itself, else its address without the port."""
    proved = _PROVED.get()
    if proved is not None:
        return proved
    for key, value in context.invocation_metadata() or ():
        if key == CLIENT_METADATA:
            return str(value)[:_LONGEST_NAME]
    return context.peer().rpartition(":")[0]


def remember_proved_name(name: str | None) -> None:
    """Make `client_of` answer this name in the running call and what it starts; None for no proof."""
    _PROVED.set(name)
