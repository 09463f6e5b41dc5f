"""The pipeline's job message: `{"run_id": …, "run_type": "initial", "priority": "normal", "payload": {…}}`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from bridge.errors import PoisonError
from bridge.job import Delivery, Job

SYSTEM = "consensus"
_EXPECTED = '{"run_id": "uuid", "run_type": "initial", "priority": "normal", "payload": {…}}'
_MARKS = frozenset({"run_id", "run_type"})
_URGENT = -1


class JobMessage(BaseModel):
    """Asks for a run whose row is in the platform's tables already."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: UUID
    run_type: str
    priority: str
    payload: dict[str, Any]


def is_request(delivery: Delivery) -> bool:
    """Whether a message is in the pipeline's form, however broken it is."""
    content = _content(delivery.body)
    return isinstance(content, dict) and (content.keys() >= _MARKS or delivery.attributes.keys() >= _MARKS)


def job_of(delivery: Delivery) -> Job:
    """Read a message. Raises `PoisonError`."""
    content = _content(delivery.body)
    try:
        message = JobMessage.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()[:5])
        raise PoisonError(f"the message is no job of the consensus pipeline ({wrong}); expected {_EXPECTED}") from error
    edits = {name: message.payload.get(name) for name in ("edited_proposal", "edit_notes")}
    request = {"run_id": str(message.run_id), "run_type": message.run_type, "priority": message.priority, **edits}
    return Job(key=str(message.run_id), system=SYSTEM, request=request, priority=_URGENT if message.priority == "high" else 0)


def message_of(*, run_id: str, run_type: str, priority: str, payload: Mapping[str, Any]) -> bytes:
    """The message that asks for a run."""
    content = {"run_id": run_id, "run_type": run_type, "priority": priority, "payload": payload}
    return json.dumps(content, ensure_ascii=False).encode()


def _content(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
