"""The platform's own jobs: `{"job_type": "lab_categorization", "user_id": 7, …}`; attributes `JobType`, `Priority`, `UserId`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, StringConstraints

from bridge.envelopes import native
from bridge.envelopes.message import Message
from bridge.errors import PoisonError
from bridge.job import Delivery, Job

SYSTEM = "lab-jobs"
_EXPECTED = '{"job_type": "lab_categorization", "user_id": 7, "document_id": 12, "tests": […], "priority": "normal"}'
_PRIORITIES = {"high": 0, "normal": 1, "low": 2}
# No job was asked for before this.
_EARLIEST = date(2015, 1, 1)


def _priority(value: object) -> str:
    """What is none of the three is normal: nobody's job is refused for it."""
    told = str(value).strip().lower()
    return told if told in _PRIORITIES else "normal"


def _day(value: object) -> date | None:
    """Of a moment; None where none can be read, or it is one that programs write for none, such as of the year 1 or 1970."""
    try:
        day = date.fromisoformat(str(value)[:10])
    except ValueError:
        return None
    return day if day >= _EARLIEST else None


def _objects(value: object) -> object:
    """Of tests those that are any: the rows that wait are worked on all the same."""
    return [test for test in value if isinstance(test, dict)] if isinstance(value, list | tuple) else ()


class PlatformJob(Message):
    """What every job says."""

    job_type: str
    priority: Annotated[Literal["high", "normal", "low"], BeforeValidator(_priority)] = "normal"


class LabCategorization(PlatformJob):
    """Asks for categories and codes of the tests of one document."""

    job_type: Literal["lab_categorization"]
    # None for all users.
    user_id: int | None = None
    # None where it is not told; then only rows that wait are worked on.
    document_id: int | None = None
    # As the platform read them; empty for the user's rows that wait.
    tests: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_objects)] = ()
    # The day on which it was asked for, by UTC; None where it is not told. No test was made after it.
    submitted_at: Annotated[date | None, BeforeValidator(_day)] = None


class LoincMapping(PlatformJob):
    """Asks for the code of one name."""

    job_type: Literal["loinc_mapping"]
    test_name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)]


class PendingPass(PlatformJob):
    """Asks for a pass over a user's rows that wait."""

    job_type: Literal["process_pending_labs", "process_pending_vitals", "process_pending_nutrition"]
    # None for all users.
    user_id: int | None = None


_MODELS: Mapping[str, type[PlatformJob]] = {
    "lab_categorization": LabCategorization,
    "loinc_mapping": LoincMapping,
    "process_pending_labs": PendingPass,
    "process_pending_vitals": PendingPass,
    "process_pending_nutrition": PendingPass,
}


def is_platform_job(delivery: Delivery) -> bool:
    """Whether a message is in the platform's form, however broken it is."""
    content = _object(delivery.body)
    return "JobType" in delivery.attributes or (content is not None and "job_type" in content and "system" not in content)


def job_of(delivery: Delivery) -> Job:
    """The job that a message asks for. What the body leaves out is taken from the attributes. Raises `PoisonError`.

    The platform gives its jobs no key: the id of the message, the same at each delivery, is theirs.
    """
    content = _object(delivery.body)
    if content is None:
        raise PoisonError(f"the message is not a JSON object; expected {_EXPECTED}.")
    said = {name: value for name, value in content.items() if value is not None}
    request = _checked({**_told_by(delivery.attributes), **said})
    key = f"{SYSTEM}/{delivery.message_id}"
    return Job(key=key, system=SYSTEM, request=request.model_dump(mode="json"), priority=_PRIORITIES[request.priority])


def request_of(job: Job) -> PlatformJob:
    """What a job asks for. Raises `PoisonError`."""
    return _checked(job.request)


def _checked(content: Mapping[str, Any]) -> PlatformJob:
    asked = content.get("job_type")
    model = _MODELS.get(asked) if isinstance(asked, str) else None
    if model is None:
        raise PoisonError(f"the message has the job_type {str(asked)[:64]!r}; expected one of {', '.join(_MODELS)}.")
    return native.check_request(model, content, expected=_EXPECTED)


def _told_by(attributes: Mapping[str, str]) -> dict[str, str]:
    names = {"JobType": "job_type", "Priority": "priority", "UserId": "user_id"}
    return {field: attributes[name] for name, field in names.items() if name in attributes}


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
