"""Where jobs come from and results go, as one value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bridge.ledger.port import DeadLetters
from bridge.sinks.port import Sink
from bridge.sources.port import Source


@dataclass(frozen=True, kw_only=True)
class Transport:
    """Where jobs come from and results go."""

    source: Source
    sink: Sink
    dead_letters: DeadLetters
    # How many messages lie in the source's queues.
    depth: Callable[[], Awaitable[int]]
