"""One call while it runs, and the status that an error ends it with."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc
import grpc.aio
import structlog

from inference_server.errors import InferenceError
from inference_server.service.errors import status_of, trailers_of
from inference_server.service.metrics.calls import MethodMetrics

Context = grpc.aio.ServicerContext[Any, Any]

# Bytes as gRPC sends them, where anything but plain ASCII takes three for one. A client drops a status that passes its bound on
# metadata, 8 KiB by default.
_LONGEST_DETAILS = 4500

_log = structlog.get_logger()


class Kind(Enum):
    """What a call takes of the server."""

    CALL = "a call"
    # Asked by those who watch the server.
    PROBE = "a probe"
    # A probe whose end is the caller's to choose.
    LASTING_PROBE = "a lasting probe"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method, looked up once."""

    # /package.Service/Method
    path: str
    metrics: MethodMetrics
    kind: Kind
    # Logged when it fails, and when a defect is looked for.
    is_quiet: bool


@dataclass(kw_only=True, slots=True)
class Call:
    """What is known of one call while it runs."""

    method: Method
    # Bytes of its requests so far.
    size: int = 0
    code: grpc.StatusCode = grpc.StatusCode.OK
    # Class of the error that ended it; its text may hold what the caller sent, and stays out of the log.
    error: str = ""
    # The caller's own name for it.
    own_id: str = ""

    @property
    def request_id(self) -> str:
        """Names the call in the log: the caller's own id, else one of ours."""
        self.own_id = self.own_id or uuid.uuid4().hex[:12]
        return self.own_id


async def abort(call: Call, context: Context, error: Exception) -> None:
    """End a call with the status of its error; always raises."""
    if isinstance(error, InferenceError):
        call.code = status_of(error)
        await context.abort(call.code, _shortened(str(error)), trailing_metadata=trailers_of(error))
    if isinstance(error, grpc.aio.AbortError):
        call.code = _code_of(context)
        raise error
    if isinstance(error, NotImplementedError) and _code_of(context) is grpc.StatusCode.UNIMPLEMENTED:
        call.code = grpc.StatusCode.UNIMPLEMENTED
        await context.abort(call.code, f"{call.method.path} is part of the protocol, and not offered by this server.")
    # The text of an unexpected error may hold anything; it stays in the log.
    _log.exception("call failed", method=call.method.path, request_id=call.request_id)
    call.code = grpc.StatusCode.INTERNAL
    await context.abort(call.code, f"the server failed on this request; its log tells why under request_id {call.request_id}.")


def _shortened(details: str) -> str:
    room = _LONGEST_DETAILS
    for index, character in enumerate(details):
        room -= 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode(errors="replace"))
        if room < 0:
            return f"{details[:index]} … ({len(details)} characters)"
    return details


def _code_of(context: Context) -> grpc.StatusCode:
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return next((status for status in grpc.StatusCode if status.value[0] == code), grpc.StatusCode.UNKNOWN)
