from __future__ import annotations

import grpc
import pytest

from inference_server import errors
from inference_server.service.errors import STATUS_BY_ERROR, status_of, trailers_of


def _tree(root: type[errors.InferenceError]) -> set[type[errors.InferenceError]]:
    own = {root} if root.__module__ == errors.__name__ else set()
    return own.union(*(_tree(child) for child in root.__subclasses__()))


def test_every_error_of_the_tree_has_a_status() -> None:
    assert set(STATUS_BY_ERROR) == _tree(errors.InferenceError)


def test_an_error_unknown_to_the_table_takes_its_nearest_ancestors_status() -> None:
    class TooBlurred(errors.InvalidSlide):
        pass

    assert status_of(TooBlurred("blurred")) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidTensor("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.NotFound("x"), grpc.StatusCode.NOT_FOUND),
        (errors.AccessDenied("x"), grpc.StatusCode.PERMISSION_DENIED),
        (errors.Overloaded("x", retry_after=1), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.DeadlineExceeded("x"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.OutputTaken("x"), grpc.StatusCode.ABORTED),
        (errors.Unavailable("x"), grpc.StatusCode.UNAVAILABLE),
        (errors.ModelFailed("x"), grpc.StatusCode.INTERNAL),
    ],
)
def test_what_a_client_may_retry_is_told_by_the_status(error: errors.InferenceError, status: grpc.StatusCode) -> None:
    assert status_of(error) is status


def test_an_overloaded_server_tells_when_to_try_again() -> None:
    assert dict(trailers_of(errors.Overloaded("full", retry_after=0.25))) == {"retry-after-ms": "250", "grpc-retry-pushback-ms": "250"}


def test_a_server_that_is_well_itself_tells_what_is_away() -> None:
    assert [(("lamina-unavailable", "model"),), (("lamina-unavailable", "storage"),)] == [
        trailers_of(errors.ModelUnavailable("broken")),
        trailers_of(errors.StorageUnavailable("silent")),
    ]


def test_other_errors_carry_no_trailers() -> None:
    assert trailers_of(errors.Unavailable("leaving")) == ()
