"""What a tracer is to whoever is traced: spans that are begun, told of and ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Attributes = Mapping[str, str | int | float | bool]


class Span(Protocol):
    """A part of a trace that is recorded. Times are `time.monotonic()`."""

    def child(self, name: str, *, start: float, attributes: Attributes, links: Sequence[Span] = ()) -> Span:
        """Begin a part of this one; `links`: what it belongs to as well."""

    def tell(self, attributes: Attributes) -> None:
        """Say more of it."""

    def event(self, name: str, attributes: Attributes, *, at: float | None = None) -> None:
        """Say that something happened, now if not at another time."""

    def end(self, *, at: float | None = None, error: str = "") -> None:
        """It is over, now if not at another time; `error`: the class of what ended it."""


@dataclass(frozen=True, kw_only=True)
class TraceParent:
    """The caller's own trace, of which the request is a part."""

    # Whether the caller records it.
    sampled: bool
    # As the tracer keeps it.
    context: object


class Tracer(Protocol):
    """Records spans and sends them away."""

    def parent(self, metadata: Sequence[tuple[str, str | bytes]]) -> TraceParent | None:
        """The caller's trace as a request's metadata tell it, in the form of W3C Trace Context; None when they tell none."""

    def begin(self, name: str, *, start: float, parent: TraceParent | None, attributes: Attributes) -> Span:
        """Begin the span of a request; of a trace of its own without `parent`."""

    def close(self) -> None:
        """Send what is left, within reason; blocks."""
