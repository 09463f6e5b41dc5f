"""The errors of the bridge.

    BridgeError
    ├── TransientError       may go better next time; the job is tried again after a back-off, and an attempt is counted
    │   ├── DeviceError      the only device that was to do it failed, or has no engine for it; another may do better
    │   └── TooSlowError     the database ended a statement that took too long, or waited too long for another's lock
    ├── OverloadError        the server is down or full; the job waits, no attempt is counted, receiving slows down
    │   ├── HeldUpError      only what this job needs of it is away, a model or its storage; the job waits, and receiving goes on
    │   └── ServerLostError  it died or froze, or its connection broke, over the job; an interruption is counted
    ├── NotYetError          other jobs come first; the job waits, no attempt is counted, and receiving goes on
    ├── PermanentError       will fail again; the job ends as failed now
    │   └── RefusedError     the inference server may not read or write a place; for who chose it to judge whose fault that is
    ├── PoisonError          the message cannot be read; it goes to the dead letters with its original bytes
    ├── LeaseLostError       another worker has taken the job over; this one's work is dropped
    └── ConfigurationError   a setting is missing or wrong; names the variable and the fix

`bridge/worker/policy.py` maps each class to what becomes of its job. A library's errors are translated once, where it is imported.
"""

from __future__ import annotations


class BridgeError(Exception):
    """Anything that the bridge reports."""


class TransientError(BridgeError):
    """May go better next time."""


class DeviceError(TransientError):
    """The only device that was to do it failed, or has no engine for it."""

    def __init__(self, message: str, *, cause: str) -> None:
        """`cause`: as the inference server names it, such as out_of_memory."""
        super().__init__(message)
        self.cause = cause


class TooSlowError(TransientError):
    """The database ended a statement that took too long. Less at a time may do."""

    def __init__(self, message: str, *, waited: bool = False) -> None:
        """`waited`: it was not slow itself: somebody else has the lock that it needs."""
        super().__init__(message)
        self.waited = waited


class OverloadError(BridgeError):
    """The server is down or full."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        """`retry_after`: seconds to wait."""
        super().__init__(message)
        self.retry_after = retry_after


class HeldUpError(OverloadError):
    """A model that the job needs, or the storage of its file, is away, while the server itself is well."""


class ServerLostError(OverloadError):
    """The server died or froze, or the connection to it broke, while it worked on the job."""


class NotYetError(BridgeError):
    """Other jobs come first."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        """`retry_after`: seconds to wait."""
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(BridgeError):
    """Will fail again."""


class RefusedError(PermanentError):
    """The inference server may not read or write a place: by its roots, or by the rights of its user or role."""


class PoisonError(BridgeError):
    """The message cannot be read."""


class LeaseLostError(BridgeError):
    """Another worker has taken the job over."""


class ConfigurationError(BridgeError):
    """A setting is missing or wrong."""


def first_line(error: BaseException) -> str:
    """What an error says, in a line; its class where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
