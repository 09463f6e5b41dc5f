"""The errors of the inference server.

    InferenceError
    ├── InvalidInput            what the caller sent is wrong, and will be wrong again
    │   ├── InvalidTensor       wrong name, shape or type of a tensor
    │   ├── InvalidSlide        truncated, not a slide, resolution unknown
    │   ├── InvalidDocument     encrypted, empty, too large, no known format
    │   └── InvalidCatalogue    a LOINC table that lacks columns or rows
    ├── NotFound                no such model, version, analysis, file
    ├── AlreadyExists           a name that is to be given is taken
    ├── NotEnabled              a part of the protocol that a setting, or this machine, does not allow
    │   └── DeviceMissing       no device of the kind that the caller wants runs a model
    ├── NotOffered              a part of the protocol that this server does not have
    ├── Unauthenticated         the call shows no token, or one that is not known
    ├── AccessDenied            a path or URL outside the allowed roots
    │   └── PermissionMissing   the caller's token or certificate does not allow this call
    ├── MessageTooLarge         a message is over the limit
    ├── Overloaded              a bound in requests or bytes is reached; `retry_after` in seconds
    ├── DeadlineExceeded        the caller's deadline passed before the work was done
    ├── OutputTaken             another analysis writes to the same place; begin again once it has ended
    ├── ContentChanged          a file was replaced while it was read; begin again
    ├── Unavailable             the server is draining, or storage does not answer; try again
    │   ├── ModelUnavailable    a model that is known does not serve; others do
    │   └── StorageUnavailable  the storage of a file does not answer, or fails; the server itself is well
    ├── ModelFailed             a model could not be loaded, or its run failed
    │   ├── DeviceFailed        a GPU is lost, out of memory, or has no engine for the model yet
    │   └── MemoryExhausted     a model does not fit into the memory for models
    └── ConfigurationError      a setting or a model's configuration is wrong

Each message names what was wrong, what was expected and how to mend it, and holds nothing secret: it is sent to the caller.
A library's errors are translated once, where the library is imported. `service/errors.py` maps each class to a gRPC status.
"""

from __future__ import annotations


class InferenceError(Exception):
    """Anything that the inference server reports to a caller or an operator."""

    def __init__(self, message: str = "", *, limit: str = "") -> None:
        """`limit`: the limit that was passed, by the name of its setting without `max_`; its refusals are counted."""
        super().__init__(message)
        self.limit = limit


class InvalidInput(InferenceError):
    """What the caller sent is wrong, and will be wrong again."""


class InvalidTensor(InvalidInput):
    """A tensor has a wrong name, shape or type."""


class InvalidSlide(InvalidInput):
    """A slide is truncated, of no known format, or does not tell its resolution."""


class InvalidDocument(InvalidInput):
    """A document is encrypted, empty, too large or of no known format."""


class InvalidCatalogue(InvalidInput):
    """A LOINC table lacks columns or rows."""


class NotFound(InferenceError):
    """There is no such model, version, analysis or file."""


class AlreadyExists(InferenceError):
    """A name that is to be given is taken."""


class NotEnabled(InferenceError):
    """A part of the protocol that a setting, or this machine, does not allow."""


class DeviceMissing(NotEnabled):
    """No device of the kind that the caller wants runs a model; another may."""

    cause = "no_engine"


class NotOffered(InferenceError):
    """A part of the protocol that this server does not have."""


class Unauthenticated(InferenceError):
    """The call shows no token, or one that is not known."""


class AccessDenied(InferenceError):
    """A path or URL lies outside the allowed roots."""


class PermissionMissing(AccessDenied):
    """The caller's token or certificate does not allow this call."""

    def __init__(self, message: str, *, permission: str) -> None:
        """`permission`: the one that is needed."""
        super().__init__(message)
        self.permission = permission


class MessageTooLarge(InferenceError):
    """A message is over the limit."""


class Overloaded(InferenceError):
    """A bound in requests or bytes is reached."""

    def __init__(self, message: str, *, retry_after: float, limit: str = "") -> None:
        """`retry_after`: seconds after which a new try may succeed."""
        super().__init__(message, limit=limit)
        self.retry_after = retry_after


class DeadlineExceeded(InferenceError):
    """The caller's deadline passed before the work was done."""

    def __init__(self, message: str = "", *, begun: bool = False, limit: str = "") -> None:
        """`begun`: whether it passed while a model ran, rather than in a queue. `limit`: where it was the server's own."""
        super().__init__(message, limit=limit)
        self.begun = begun


class OutputTaken(InferenceError):
    """Another analysis writes to the same place; the same request may succeed once it has ended."""


class ContentChanged(InferenceError):
    """A file was replaced or removed while it was read; the same request may succeed once it lies there whole."""


class Unavailable(InferenceError):
    """The server is draining, or storage does not answer; the same request may succeed later."""


class ModelUnavailable(Unavailable):
    """A model that is known does not serve, until somebody mends or loads it; the server itself is well."""


class StorageUnavailable(Unavailable):
    """The storage of a file does not answer, or fails; the server itself is well."""


class ModelFailed(InferenceError):
    """A model could not be loaded, or its run failed."""


class DeviceFailed(ModelFailed):
    """A GPU is lost, out of memory, or has no engine for the model yet: another device may do better."""

    def __init__(self, message: str, *, cause: str) -> None:
        """`cause`: device_lost, out_of_memory or engine_not_built, as responses and metrics tell it."""
        super().__init__(message)
        self.cause = cause


class MemoryExhausted(ModelFailed):
    """A model does not fit into the memory that there is for models."""


class ConfigurationError(InferenceError):
    """A setting or a model's configuration is wrong."""
