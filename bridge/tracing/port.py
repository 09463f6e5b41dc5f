"""What follows the work of a bridge. Whoever follows it, or nobody, the context of a trace is passed on."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

# W3C's headers, `traceparent` and perhaps `tracestate`; empty for no trace. https://www.w3.org/TR/trace-context/
Carrier = Mapping[str, str]
Facts = Mapping[str, str | int | float]


class Kind(StrEnum):
    """Which side of a call a span is."""

    INTERNAL = "internal"
    CONSUMER = "consumer"
    PRODUCER = "producer"
    CLIENT = "client"


class Span(Protocol):
    """A part of the work, while it lasts. One that is never ended is never told."""

    @property
    def carrier(self) -> Carrier:
        """What those who work for this span are to be given."""

    def end(self, *, failure: str = "", at: float | None = None, facts: Facts | None = None) -> None:
        """Ended, now or `at` seconds since 1970. `failure`: why, when it did not go well. A second end changes nothing."""


class Tracer(Protocol):
    """Begins spans."""

    @property
    def listens(self) -> bool:
        """Whether spans are told to anybody."""

    def start(self, name: str, *, parent: Carrier, kind: Kind = Kind.INTERNAL, facts: Facts | None = None, at: float | None = None) -> Span:
        """Begin a span, now or `at` seconds since 1970; with an empty parent it begins a trace."""

    async def close(self) -> None:
        """Tell what is still to be told; takes a few seconds at most."""


class NullTracer:
    """Nobody listens: what comes in is passed on as it is."""

    listens = False

    def start(self, name: str, *, parent: Carrier, kind: Kind = Kind.INTERNAL, facts: Facts | None = None, at: float | None = None) -> Span:
        """A span of nothing."""
        return _PassedOn(parent)

    async def close(self) -> None:
        """Nothing is left to be told."""


class _PassedOn:
    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    def end(self, *, failure: str = "", at: float | None = None, facts: Facts | None = None) -> None:
        """Nothing is told."""
