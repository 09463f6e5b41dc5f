"""What our own systems answer: one JSON event for each job.

`{"job_key": …, "system": …, "status": "succeeded", "result": {…}}`, or `{…, "status": "failed", "error": …, "reason": …}`; with the
`traceparent` of a job that belongs to a trace, since some channels carry nothing but the body.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.job import Event, Job, Outcome

# Below what SQS, SNS and Pub/Sub take in one message, with room for envelopes.
_MOST_EVENT_BYTES = 200_000


def completed(job: Job, result: Mapping[str, Any], *, bulky: Sequence[str] = ()) -> Outcome:
    """The outcome of a job that went well. The `bulky` keys are left out of an event that would be too large for a queue."""
    head = {"job_key": job.key, "system": job.system, "status": "succeeded", **job.trace}
    body = _encoded({**head, "result": result})
    if len(body) > _MOST_EVENT_BYTES:
        body = _encoded({**head, "result": {key: value for key, value in result.items() if key not in bulky}})
    return Outcome(succeeded=True, result=result, events=(_event("completed", job, body),))


def failed(job: Job, *, error: str, reason: str) -> Outcome:
    """The outcome of a job that is given up. `error`: what did not work; `reason`: why."""
    result = {"error": error, "reason": reason}
    body = _encoded({"job_key": job.key, "system": job.system, "status": "failed", **job.trace, **result})
    return Outcome(succeeded=False, result=result, events=(_event("failed", job, body),))


def _event(kind: str, job: Job, body: bytes) -> Event:
    return Event(type=kind, destination=job.reply_queue, body=body, attributes={"system": job.system, "content-type": "application/json"})


def _encoded(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
