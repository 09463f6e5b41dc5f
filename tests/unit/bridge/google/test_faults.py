from __future__ import annotations

import grpc
import pytest
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, TransportError

from bridge.errors import BridgeError, ConfigurationError, PermanentError, TransientError
from bridge.google.faults import passing_ids, stale_ids, translated

_EXPECTED = {
    grpc.StatusCode.UNAVAILABLE: TransientError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TransientError,
    grpc.StatusCode.DEADLINE_EXCEEDED: TransientError,
    grpc.StatusCode.NOT_FOUND: ConfigurationError,
    grpc.StatusCode.PERMISSION_DENIED: ConfigurationError,
    grpc.StatusCode.UNAUTHENTICATED: ConfigurationError,
    grpc.StatusCode.INVALID_ARGUMENT: PermanentError,
    grpc.StatusCode.FAILED_PRECONDITION: PermanentError,
}


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_every_status_means_something(code: grpc.StatusCode) -> None:
    error = translated(exceptions.from_grpc_status(code, "why"), "publish to results")

    assert _EXPECTED.get(code, type(error)) is type(error)
    assert isinstance(error, BridgeError)
    assert "Pub/Sub, publish to results" in str(error)
    assert "why" in str(error)


def test_what_is_no_answer_is_told_apart() -> None:
    assert TransientError is type(translated(exceptions.RetryError("too long", cause=None), "pull"))
    assert TransientError is type(translated(TransportError("no network", retryable=True), "pull"))
    assert ConfigurationError is type(translated(DefaultCredentialsError("none"), "pull"))


def test_an_error_without_details_names_no_receipts() -> None:
    error = exceptions.FailedPrecondition("why")
    assert (frozenset(), frozenset()) == (stale_ids(error), passing_ids(error))
