"""What the errors of AWS mean to us: one table."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.errors import BridgeError, ConfigurationError, LeaseLostError, PermanentError, TransientError

# By error code; what is not here is transient when the service is at fault, and else permanent.
_MEANINGS: Mapping[str, type[BridgeError]] = {
    **dict.fromkeys(("ReceiptHandleIsInvalid", "MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight"), LeaseLostError),
    **dict.fromkeys(
        (
            "AWS.SimpleQueueService.NonExistentQueue",
            "QueueDoesNotExist",
            "NotFound",
            "NoSuchBucket",
            "AccessDenied",
            "AccessDeniedException",
            "AuthorizationError",
            "InvalidClientTokenId",
            "UnrecognizedClientException",
            "SignatureDoesNotMatch",
            "InvalidAddress",
        ),
        ConfigurationError,
    ),
    **dict.fromkeys(
        (
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "RequestThrottled",
            "RequestLimitExceeded",
            "TooManyRequestsException",
            "SlowDown",
            "OverLimit",
            "ServiceUnavailable",
            "InternalError",
            "InternalFailure",
            "ExpiredToken",
            "ExpiredTokenException",
            "RequestExpired",
            "KmsThrottled",
        ),
        TransientError,
    ),
}
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "NoRegionError", "InvalidEndpoint")
_HTTP_FAULT = 500


def translated(error: Exception, called: str) -> BridgeError:
    """Our error for one of boto3's. `called`: what was tried."""
    if isinstance(error, BridgeError):
        return error
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        problem = answer.get("Error", {})
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
        return meant(str(problem.get("Code", "")), f"{called}: {problem.get('Message', error)}", at_fault=status >= _HTTP_FAULT)
    name = type(error).__name__
    if name in _NO_CREDENTIALS or isinstance(error, ValueError):
        return ConfigurationError(f"{called}: {error}; set BRIDGE_AWS_* or the usual AWS_* variables, or give the machine a role")
    if name == "ParamValidationError":
        return PermanentError(f"{called}: {error}")
    return TransientError(f"{called}: {name}: {error}")


def meant(code: str, text: str, *, at_fault: bool) -> BridgeError:
    """Our error for a code of AWS. `at_fault`: whether the service, not the caller, is to blame."""
    kind = _MEANINGS.get(code) or (TransientError if at_fault else PermanentError)
    hint = "; does it exist, and may we use it? `bridge topology apply` makes what is missing" if kind is ConfigurationError else ""
    return kind(f"{text} ({code}){hint}")
