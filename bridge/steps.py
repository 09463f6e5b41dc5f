"""The steps that a message and its job go through: the code's own list, which the crash matrix walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

# The outcome of RECEIVED when the message was delivered before.
REDELIVERED = "redelivered"
# The outcome of HANDLED and COMMITTED when the job has a result.
SUCCEEDED = "succeeded"


class Step(StrEnum):
    """Each is told right after it has happened."""

    RECEIVED = "received"  # a source gave a delivery
    READ = "read"  # the delivery turned out to be a job
    BURIED = "buried"  # the delivery cannot be read; it lies in the dead letters
    CLAIMED = "claimed"  # the ledger gave us the job
    REFUSED = "refused"  # the ledger did not: another has it, or it has ended
    RENEWED = "renewed"  # the leases were prolonged
    CHECKPOINTED = "checkpointed"  # the handler saved its place
    HANDLED = "handled"  # the handler came back, with a result or an error
    COMMITTED = "committed"  # the end of the job and its messages are in the ledger
    RELEASED = "released"  # the ledger has the job back for a later try
    RETURNED = "returned"  # the source has the delivery back
    ACKNOWLEDGED = "acknowledged"  # the message is off its queue
    TAKEN = "taken"  # the relay leased a message of the outbox
    SENT = "sent"  # the sink has it
    MARKED = "marked"  # the outbox knows that the sink has it
    POSTPONED = "postponed"  # sending failed; the outbox keeps the message for later


# These come in the middle of the work, which is timed whole: they have no length of their own.
MOMENTS = frozenset({Step.RENEWED, Step.CHECKPOINTED})


@dataclass(frozen=True, kw_only=True)
class StepTaken:
    """One step of one job."""

    step: Step
    # Empty when the message could not be read.
    job_key: str
    # Empty when it is not known.
    system: str
    # Seconds since the step before it.
    seconds: float
    # What came of it, in a word: succeeded, failed, TransientError, waiting. Empty when the step says it all.
    outcome: str = ""
    # The source of the delivery; empty for the relay's steps.
    source: str = ""
    # Seconds since the delivery was received; 0 for the relay's steps.
    since_receipt: float = 0.0
    # Of COMMITTED: `cpu` where the server's did the work in a GPU's place, or the program that did it in the server's; else empty.
    fallback: str = ""


class Observer(Protocol):
    """Is told of every step. It must be quick and must not raise."""

    def on_step(self, taken: StepTaken) -> None:
        """Called right after the step."""


class Observers:
    """Several observers as one, told in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def on_step(self, taken: StepTaken) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.on_step(taken)
