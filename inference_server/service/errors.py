"""Which gRPC status each error of the server becomes. This table is the only place that knows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import grpc

from inference_server import errors

# The trailing metadata that names the permission that a caller lacks.
PERMISSION_KEY = "lamina-permission"
# And the one that tells why a device did not do what another may do: device_lost, out_of_memory, engine_not_built or no_engine.
DEVICE_KEY = "lamina-device-cause"
# And the one that tells what it is that is not available, where the server itself is well: model or storage.
UNAVAILABLE_KEY = "lamina-unavailable"

STATUS_BY_ERROR: Mapping[type[errors.InferenceError], grpc.StatusCode] = MappingProxyType(
    {
        errors.InferenceError: grpc.StatusCode.INTERNAL,
        errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
        errors.InvalidTensor: grpc.StatusCode.INVALID_ARGUMENT,
        errors.InvalidSlide: grpc.StatusCode.INVALID_ARGUMENT,
        errors.InvalidDocument: grpc.StatusCode.INVALID_ARGUMENT,
        errors.InvalidCatalogue: grpc.StatusCode.INVALID_ARGUMENT,
        errors.NotFound: grpc.StatusCode.NOT_FOUND,
        errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
        errors.NotEnabled: grpc.StatusCode.FAILED_PRECONDITION,
        errors.DeviceMissing: grpc.StatusCode.FAILED_PRECONDITION,
        errors.NotOffered: grpc.StatusCode.UNIMPLEMENTED,
        errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
        errors.AccessDenied: grpc.StatusCode.PERMISSION_DENIED,
        errors.PermissionMissing: grpc.StatusCode.PERMISSION_DENIED,
        # As gRPC itself answers to messages that are larger still.
        errors.MessageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
        # In gRPC's words: begin again at a higher level.
        errors.ContentChanged: grpc.StatusCode.ABORTED,
        errors.OutputTaken: grpc.StatusCode.ABORTED,
        errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
        errors.ModelUnavailable: grpc.StatusCode.UNAVAILABLE,
        errors.StorageUnavailable: grpc.StatusCode.UNAVAILABLE,
        errors.ModelFailed: grpc.StatusCode.INTERNAL,
        errors.DeviceFailed: grpc.StatusCode.INTERNAL,
        errors.MemoryExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.ConfigurationError: grpc.StatusCode.FAILED_PRECONDITION,
    }
)


def status_of(error: errors.InferenceError) -> grpc.StatusCode:
    """The status of an error: its own class's, else its nearest ancestor's."""
    return next(STATUS_BY_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_BY_ERROR)


def trailers_of(error: errors.InferenceError) -> tuple[tuple[str, str], ...]:
    """What a client should know beside status and message.

    When to try again, for itself and for gRPC's own retries; that it is the caller who may not, rather than the path; what a device
    failed of; and that it is not the server that is away.
    """
    if isinstance(error, errors.PermissionMissing):
        return ((PERMISSION_KEY, error.permission),)
    if isinstance(error, errors.DeviceFailed | errors.DeviceMissing):
        return ((DEVICE_KEY, error.cause),)
    if isinstance(error, errors.ModelUnavailable | errors.StorageUnavailable):
        return ((UNAVAILABLE_KEY, "model" if isinstance(error, errors.ModelUnavailable) else "storage"),)
    if not isinstance(error, errors.Overloaded):
        return ()
    milliseconds = str(max(1, round(error.retry_after * 1000)))
    return (("retry-after-ms", milliseconds), ("grpc-retry-pushback-ms", milliseconds))
