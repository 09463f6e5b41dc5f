"""The bridge's own envelope: `{"system": "wsi", "key": "…", "request": {…}}` as JSON. Keys that it does not know are ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from bridge.envelopes.message import Message
from bridge.errors import PoisonError
from bridge.job import Job

_EXPECTED = '{"system": "…", "key": "…", "request": {…}}'
_MOST_PROBLEMS = 3

RequestModel = TypeVar("RequestModel", bound=BaseModel)


class NativeEnvelope(Message):
    """What every message of ours says beside its request."""

    # The system that the job is for: wsi, documents, labs.
    system: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
    # Identifies the job: two messages with one key are one job.
    key: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    # What the system's own messages read.
    request: dict[str, Any]
    # Where the result goes; empty for the bridge's own.
    reply_queue: str = ""
    # Lower goes first; 0 for the default.
    priority: Annotated[int, Field(ge=0)] = 0


def write(job: Job) -> bytes:
    """The message that asks for a job. Raises `PoisonError` when its key or its priority cannot be sent."""
    said = {"system": job.system, "key": job.key, "request": dict(job.request), "reply_queue": job.reply_queue, "priority": job.priority}
    envelope = _validated(NativeEnvelope, said, where="the message", expected=_EXPECTED)
    # The trace is no part of the model: a sender's mistake in it must not make a message poison.
    content = {**envelope.model_dump(mode="json", exclude_defaults=True), **job.trace}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def read(body: bytes) -> NativeEnvelope:
    """Open a message of ours. Raises `PoisonError`, naming the field and what was expected."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PoisonError(f"the message is not JSON ({error}); expected {_EXPECTED}.") from error
    if not isinstance(parsed, dict):
        raise PoisonError(f"the message is a JSON {_kind(parsed)}; expected an object: {_EXPECTED}.")
    return _validated(NativeEnvelope, parsed, where="the message", expected=_EXPECTED)


def read_job(body: bytes, *, system: str, request: type[BaseModel], expected: str) -> Job:
    """Open a message of ours for one system, and check its request.

    `expected` shows a request that is right. Raises `PoisonError`.
    """
    envelope = read(body)
    if envelope.system != system:
        raise PoisonError(f"the message is for the system {envelope.system}; expected {system}. Send it to that system's queue.")
    checked = check_request(request, envelope.request, expected=expected)
    return Job(
        key=envelope.key,
        system=system,
        request=checked.model_dump(mode="json", exclude_defaults=True),
        reply_queue=envelope.reply_queue,
        priority=envelope.priority,
    )


def check_request(model: type[RequestModel], request: Mapping[str, Any], *, expected: str) -> RequestModel:
    """Check what a request says. Raises `PoisonError`, naming the field and what was expected."""
    return _validated(model, request, where="the request", expected=expected)


def _validated(model: type[RequestModel], content: Mapping[str, Any], *, where: str, expected: str) -> RequestModel:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise PoisonError(f"{where} is not right: {_problems(error)}. Expected {expected}.") from error


def _problems(error: ValidationError) -> str:
    # The values are left out: they may be personal, and this text is logged.
    all_problems = error.errors(include_input=False)
    found = [f"{_place(problem['loc'])}: {_said(problem)}" for problem in all_problems if not _follows(problem, all_problems)]
    more = f"; and {len(found) - _MOST_PROBLEMS} more" if len(found) > _MOST_PROBLEMS else ""
    return "; ".join(found[:_MOST_PROBLEMS]) + more


def _place(location: Sequence[str | int]) -> str:
    return ".".join(map(str, location)) or "it"


def _follows(problem: Mapping[str, Any], all_problems: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a list only counts as too short because items in it are wrong, which is told on its own."""
    place = problem["loc"]
    return problem["type"] == "too_short" and any(other["loc"][: len(place)] == place != other["loc"] for other in all_problems)


def _said(problem: Mapping[str, Any]) -> str:
    bounds = problem.get("ctx", {})
    of_what = "characters" if bounds.get("field_type") == "Value" else "items"
    match problem["type"]:
        case "too_short":
            return f"{bounds['actual_length']} {of_what}; at least {bounds['min_length']} expected"
        case "too_long":
            return f"{bounds['actual_length'] or 'too many'} {of_what}; at most {bounds['max_length']} expected"
        case "string_too_short":
            return "is empty"
        case "model_type":
            return "expected an object"
        case _:
            return _lowered(problem["msg"])


def _lowered(text: str) -> str:
    return (text[:1].lower() + text[1:]).removeprefix("value error, ")


def _kind(value: object) -> str:
    return {list: "list", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
