"""How long calls may take, how they are tried again, and how closely servers are watched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long each call may take, in seconds. Every call has a deadline."""

    # A whole slide.
    slide: float = 6 * 3600.0
    # A whole document.
    document: float = 3600.0
    # One list of lab tests.
    labs: float = 120.0
    # The longest silence of a stream before it is taken for dead.
    idle: float = 300.0


@dataclass(frozen=True, kw_only=True)
class Watchfulness:
    """How closely the servers behind an address are watched, in seconds."""

    # Between two health checks of a server that serves, and of one that does not; and how long an answer may take.
    look_seconds: float = 3.0
    again_seconds: float = 1.0
    answer_seconds: float = 3.0
    # Calls of a server are given up once its health checks have been unanswered for so long.
    silent_seconds: float = 15.0
    # Between two look-ups of the servers' names.
    resolve_seconds: float = 5.0


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How a call that the server refused is tried again within the process, before the job is put back."""

    # Rounds in all; in each a call is tried on every server that may take it.
    attempts: int = 4
    # Each wait is random between 0 and this times 2 to the power of the tries so far (full jitter), in seconds.
    wait_initial: float = 0.2
    # No wait is longer, in seconds. A server that asks for a longer one gets its job put back instead.
    wait_most: float = 5.0
