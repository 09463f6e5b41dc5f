"""The lab system's messages: `{"tests": [{"name": …, "value"?: …, "unit"?: …}, …]}` in our own envelope."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

from bridge.envelopes import native
from bridge.envelopes.message import Message
from bridge.errors import PoisonError
from bridge.job import Job

SYSTEM = "labs"
_EXPECTED = '{"tests": [{"name": "Hemoglobin", "value": "13.5", "unit": "g/dL"}]}, a list with at least one test'


def _as_text(value: object) -> object:
    # Values come as numbers as often as as text.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


# What LabService takes of a name, a value or any other text of a test.
_MOST_CHARACTERS = 300

Text = Annotated[str, BeforeValidator(_as_text), StringConstraints(strip_whitespace=True, max_length=_MOST_CHARACTERS)]


class LabTestRequest(Message):
    """One test as a laboratory printed it."""

    # Names the test to its sender; empty for its place in the list, from 1.
    id: Text = ""
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=_MOST_CHARACTERS)]
    value: Text = ""
    unit: Text = ""
    specimen: Text = ""
    reference_range: Text = ""


class LabRequest(Message):
    """Asks for categories and codes of tests."""

    tests: Annotated[tuple[LabTestRequest, ...], Field(min_length=1, max_length=10_000)]
    # Candidates for each test; 0 for the server's own number.
    top_k: Annotated[int, Field(ge=0, le=50)] = 0


def tests_from_json(text: str | bytes) -> list[Any]:
    """The tests of a file: a list, or an object that has one under `tests`. Raises `PoisonError`, saying where it is not JSON."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PoisonError(f"the lab list is not JSON ({error}); expected {_EXPECTED}.") from error
    tests = parsed.get("tests") if isinstance(parsed, dict) else parsed
    if not isinstance(tests, list):
        raise PoisonError(f"the lab list holds no list of tests; expected {_EXPECTED}.")
    return tests


def request_message(*, key: str, tests: Sequence[Mapping[str, Any]], top_k: int = 0, reply_queue: str = "", priority: int = 0) -> bytes:
    """The message that asks for a list of tests. Raises `PoisonError`, naming the test and the field that is wrong."""
    request = native.check_request(LabRequest, {"tests": tests, "top_k": top_k}, expected=_EXPECTED)
    content = request.model_dump(mode="json", exclude_defaults=True)
    return native.write(Job(key=key, system=SYSTEM, request=content, reply_queue=reply_queue, priority=priority))


def job_of(body: bytes) -> Job:
    """The job that a message asks for. Raises `PoisonError`."""
    return native.read_job(body, system=SYSTEM, request=LabRequest, expected=_EXPECTED)


def request_of(job: Job) -> LabRequest:
    """What a job asks for. Raises `PoisonError`."""
    return native.check_request(LabRequest, job.request, expected=_EXPECTED)
