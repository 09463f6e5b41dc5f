"""Cases for people that could not be handed over at once."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a case lies."""

    WAITING = "waiting"
    DEAD = "dead"
