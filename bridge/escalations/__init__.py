"""Cases for people that could not be handed over at once."""

from __future__ import annotations

from enum import StrEnum

# The platform's name for the list.
ESCALATIONS = "filot:buli2:retry_queue"


def keys_of(escalations: str) -> tuple[str, str, str]:
    """The keys of a list: its own, that of the dead cases, and that of whoever hands cases over now."""
    return escalations, f"{escalations}:dead", f"{escalations}:turn"


class State(StrEnum):
    """Where a case lies."""

    WAITING = "waiting"
    DEAD = "dead"
