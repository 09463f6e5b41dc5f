"""What a kind of queue brings, as values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bridge.ledger.port import DeadLetters
from bridge.sinks.port import Sink
from bridge.sources.port import QueueLevel, Source


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A source and its sink."""

    source: Source
    sink: Sink
    # How many messages lie in the source's queues. Raises `TransientError`, `ConfigurationError`.
    depth: Callable[[], Awaitable[int]]
    # What lies in each of them, as far as it can be told. Raises the same.
    levels: Callable[[], Awaitable[Sequence[QueueLevel]]]
    # Raises why no messages can come; None where the ledger's own probe tells that, or nothing cheap does.
    probe: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, kw_only=True)
class Transport(Broker):
    """Where jobs come from and results go."""

    dead_letters: DeadLetters
