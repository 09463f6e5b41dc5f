"""One table: what each gRPC status means for a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import grpc

from bridge.errors import (
    BridgeError,
    DeviceError,
    HeldUpError,
    OverloadError,
    PermanentError,
    RefusedError,
    ServerLostError,
    TransientError,
)

# The trailing metadata in which a server that is full says when to come back.
RETRY_AFTER_KEY = "retry-after-ms"
# And that in which it names the permission that our token lacks.
PERMISSION_KEY = "lamina-permission"
# And that in which it tells why the only device that we allowed did not do it.
DEVICE_KEY = "lamina-device-cause"
# The metadata that asks it to tell when it begins to work on a request, and that which it then sends before its answer.
TELL_BEGIN_KEY = "lamina-tell-begin"
BEGUN_KEY = "lamina-begun"
# And that by which an UNAVAILABLE is known to be its own word.
OWN_STATUS_KEY = "lamina-own-status"
# And that in which it tells that it is well itself, and what is away: a model, or the storage of a file.
UNAVAILABLE_KEY = "lamina-unavailable"
# Ours, of a call that was given up because the server had fallen silent.
SILENT_KEY = "lamina-silent"
_DEFAULT_RETRY_AFTER = 2.0
# An operator has to do something first.
_CREDENTIALS_RETRY_AFTER = 15.0
# Somebody has to mend a model, or a storage has failed for longer than the server tried.
_HELD_UP_RETRY_AFTER = 15.0
_LONGEST_RETRY_AFTER = 300.0


class Meaning(Enum):
    """What a status means for a job."""

    OVERLOAD = "the server is down or full: wait, count no attempt"
    TRANSIENT = "may go better next time: count an attempt"
    PERMANENT = "will fail again: end the job"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is done about a status."""

    meaning: Meaning
    # Whether the same call is tried again within the process first. All our calls are idempotent.
    retried: bool = False


RULES: Mapping[grpc.StatusCode, Rule] = {
    grpc.StatusCode.UNAVAILABLE: Rule(meaning=Meaning.OVERLOAD, retried=True),
    grpc.StatusCode.RESOURCE_EXHAUSTED: Rule(meaning=Meaning.OVERLOAD, retried=True),
    grpc.StatusCode.ABORTED: Rule(meaning=Meaning.TRANSIENT, retried=True),
    # Our token is at fault, not the job: jobs wait until an operator has mended it.
    grpc.StatusCode.UNAUTHENTICATED: Rule(meaning=Meaning.OVERLOAD),
    # Somebody between gave the call up; nobody said that the request is wrong.
    grpc.StatusCode.CANCELLED: Rule(meaning=Meaning.TRANSIENT),
    grpc.StatusCode.DEADLINE_EXCEEDED: Rule(meaning=Meaning.TRANSIENT),
    grpc.StatusCode.INTERNAL: Rule(meaning=Meaning.TRANSIENT),
    grpc.StatusCode.UNKNOWN: Rule(meaning=Meaning.TRANSIENT),
    grpc.StatusCode.INVALID_ARGUMENT: Rule(meaning=Meaning.PERMANENT),
    grpc.StatusCode.NOT_FOUND: Rule(meaning=Meaning.PERMANENT),
    grpc.StatusCode.ALREADY_EXISTS: Rule(meaning=Meaning.PERMANENT),
    grpc.StatusCode.PERMISSION_DENIED: Rule(meaning=Meaning.PERMANENT),
    grpc.StatusCode.FAILED_PRECONDITION: Rule(meaning=Meaning.PERMANENT),
    grpc.StatusCode.OUT_OF_RANGE: Rule(meaning=Meaning.PERMANENT),
    grpc.StatusCode.UNIMPLEMENTED: Rule(meaning=Meaning.PERMANENT),
    grpc.StatusCode.DATA_LOSS: Rule(meaning=Meaning.PERMANENT),
}


_OVERLOADS = {
    grpc.StatusCode.UNAVAILABLE: "is not available",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "is full",
    grpc.StatusCode.UNAUTHENTICATED: "does not take our token",
}


def is_retried(error: grpc.aio.AioRpcError) -> bool:
    """Whether the same call is worth another try now."""
    # A message over the limit is RESOURCE_EXHAUSTED too, and never gets smaller.
    # What a server broke off over may break the next one too: its job is put back first.
    return RULES[error.code()].retried and not _is_too_big(error) and not _broke_off(error)


def is_well(error: grpc.aio.AioRpcError) -> bool:
    """Whether the server that refused says that it is well itself, so that only what needs the same has to wait."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and UNAVAILABLE_KEY in dict(error.trailing_metadata() or ())


def _broke_off(error: grpc.aio.AioRpcError) -> bool:
    """Whether a server that had begun to work on the request is gone, or its connection is, without a word of its own.

    One that could not be reached had not begun, and one that drains or refuses says so itself.
    """
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    return BEGUN_KEY in dict(error.initial_metadata() or ()) and OWN_STATUS_KEY not in dict(error.trailing_metadata() or ())


def translate(error: grpc.aio.AioRpcError, *, address: str) -> BridgeError:
    """The error of ours for a call that failed."""
    code, details = error.code(), error.details() or "no details"
    trailing = dict(error.trailing_metadata() or ())
    if PERMISSION_KEY in trailing:
        reason = f"the inference server at {address} lets our token do too little: {details} [{code.name}]"
        return OverloadError(reason, retry_after=_CREDENTIALS_RETRY_AFTER)
    if cause := trailing.get(DEVICE_KEY):
        return DeviceError(details, cause=str(cause))
    if _is_too_big(error):
        return PermanentError(f"the request or its answer is larger than a message may be ({details}). Send a smaller file, or its URL.")
    if _broke_off(error) or SILENT_KEY in trailing:
        return ServerLostError(
            f"the inference server at {address} was lost while it worked on this: {details}", retry_after=_DEFAULT_RETRY_AFTER
        )
    meaning = RULES[code].meaning
    text = f"{details} [{code.name}]"
    if is_well(error):
        return HeldUpError(text, retry_after=_HELD_UP_RETRY_AFTER)
    if meaning is Meaning.OVERLOAD:
        reason = f"the inference server at {address} {_OVERLOADS[code]}: {text}"
        pause = _CREDENTIALS_RETRY_AFTER if code is grpc.StatusCode.UNAUTHENTICATED else _DEFAULT_RETRY_AFTER
        return OverloadError(reason, retry_after=retry_after(error) or pause)
    if meaning is Meaning.TRANSIENT:
        return TransientError(text)
    return RefusedError(text) if code is grpc.StatusCode.PERMISSION_DENIED else PermanentError(text)


def retry_after(error: grpc.aio.AioRpcError) -> float | None:
    """Seconds after which the server wants us back; None when it does not say."""
    for key, value in error.trailing_metadata() or ():
        if key == RETRY_AFTER_KEY:
            try:
                return min(max(float(value) / 1000, 0.0), _LONGEST_RETRY_AFTER)
            except ValueError:
                return None
    return None


def _is_too_big(error: grpc.aio.AioRpcError) -> bool:
    details = error.details() or ""
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
