"""What becomes of a job whose work ended with an error: one table, total."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from bridge.errors import (
    BridgeError,
    ConfigurationError,
    DeviceError,
    HeldUpError,
    LeaseLostError,
    NotYetError,
    OverloadError,
    PermanentError,
    PoisonError,
    RefusedError,
    ServerLostError,
    TooSlowError,
    TransientError,
)


class Fate(StrEnum):
    """What becomes of a job."""

    RETRY = "retry"  # tried again after a back-off; an attempt is counted, and the last one ends it as failed
    WAIT = "wait"  # tried again, no attempt is counted, and receiving slows down
    HOLD = "hold"  # tried again, later each time, no attempt is counted, and receiving goes on: others may need nothing of what is away
    SUSPECT = "suspect"  # as WAIT, and an interruption is counted; too many in a row end it as failed
    YIELD = "yield"  # tried again, no attempt is counted, and receiving goes on: the jobs that it waits for need the place
    FAIL = "fail"  # ends as failed now; its message lies in the dead letters, to be replayed
    DROP = "drop"  # left to whoever holds it now


# The nearest class of an error's ancestry counts.
FATES: Mapping[type[Exception], Fate] = {
    TransientError: Fate.RETRY,
    DeviceError: Fate.RETRY,
    TooSlowError: Fate.RETRY,
    OverloadError: Fate.WAIT,
    HeldUpError: Fate.HOLD,
    ServerLostError: Fate.SUSPECT,
    NotYetError: Fate.YIELD,
    PermanentError: Fate.FAIL,
    RefusedError: Fate.FAIL,
    PoisonError: Fate.FAIL,
    LeaseLostError: Fate.DROP,
    ConfigurationError: Fate.WAIT,  # the fault of whoever set the bridge up, not of the job
    BridgeError: Fate.RETRY,
    Exception: Fate.RETRY,  # unforeseen; told with its traceback
}


def fate_of(error: Exception) -> Fate:
    """What becomes of a job whose work ended so."""
    return next(FATES[ancestor] for ancestor in type(error).__mro__ if ancestor in FATES)


def unforeseen(error: Exception) -> Exception | None:
    """The error itself, to be logged with its traceback, when it is none of ours."""
    return None if isinstance(error, BridgeError) else error
