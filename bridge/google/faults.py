"""What the errors of Google's clients mean to us: one table."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError

from bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError

# By gRPC status; what is not here is permanent.
_MEANINGS: Mapping[grpc.StatusCode, type[BridgeError]] = {
    **dict.fromkeys(
        (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED),
        ConfigurationError,
    ),
    **dict.fromkeys(
        (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.ABORTED,
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.UNKNOWN,
        ),
        TransientError,
    ),
}
_HINT = "does it exist, and may we use it? see BRIDGE_PUBSUB_PROJECT and BRIDGE_PUBSUB_CREDENTIALS"
# What exactly-once delivery says of an id that no longer counts.
_STALE = "PERMANENT_FAILURE_INVALID_ACK_ID"
# What these clients raise.
FAULTS = (exceptions.GoogleAPICallError, exceptions.RetryError, GoogleAuthError, grpc.RpcError)


def translated(error: Exception, called: str) -> BridgeError:
    """Our error for one of theirs. `called`: what was tried."""
    text = f"Pub/Sub, {called}: {error}"
    if isinstance(error, GoogleAuthError):
        return TransientError(text) if error.retryable else ConfigurationError(f"{text}; set BRIDGE_PUBSUB_CREDENTIALS to a key's file")
    code = error.grpc_status_code if isinstance(error, exceptions.GoogleAPICallError) else getattr(error, "code", lambda: None)()
    if code is None:  # such as retries that ran out
        return TransientError(text)
    kind = _MEANINGS.get(code, PermanentError)
    return ConfigurationError(f"{text}; {_HINT}") if kind is ConfigurationError else kind(text)


def stale_ids(error: Exception) -> frozenset[str]:
    """The acknowledgement ids that a subscription with exactly-once delivery refused for good."""
    told = error.metadata if isinstance(error, exceptions.GoogleAPICallError) else None
    return frozenset(name for name, reason in (told or {}).items() if reason == _STALE)


def passing_ids(error: Exception) -> frozenset[str]:
    """Those that it could not settle just now."""
    told = error.metadata if isinstance(error, exceptions.GoogleAPICallError) else None
    return frozenset(name for name, reason in (told or {}).items() if reason.startswith("TRANSIENT_FAILURE"))
