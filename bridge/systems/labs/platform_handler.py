"""The lab platform's work: what waits in its tables is categorised and rolled up, as its jobs ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog

from bridge.errors import NotYetError, TransientError
from bridge.job import Delivery, Event, Job, Outcome
from bridge.rollups.days import PrintedDays
from bridge.rollups.labs import LabRollup, printed_days
from bridge.rollups.passes import until_empty
from bridge.rollups.port import Rolled, Rollup
from bridge.systems.labs import platform_messages
from bridge.systems.port import Context

_log = structlog.get_logger()
_KINDS = {"process_pending_labs": "labs", "process_pending_vitals": "vitals", "process_pending_nutrition": "nutrition"}
# Of a message's attribute, in characters.
_LONGEST_REASON = 500
# So often is it waited for another worker that is at the same user's rows: queues count how often they give a message out.
_MOST_WAITS = 2


class PlatformLabHandler:
    """Does the jobs of the platform's queue. A pass is for the job's user alone, where it tells one: nobody waits for another's backlog."""

    def __init__(self, *, labs: LabRollup, others: Mapping[str, Rollup], dead_queue: str = "") -> None:
        """`others`: vitals and nutrition, by name. `dead_queue`: of SQS, takes jobs that are given up; empty for none."""
        self._labs = labs
        self._dead_queue = dead_queue
        self._rollups: Mapping[str, Rollup] = {"labs": labs, **others}

    @property
    def system(self) -> str:
        """Its name."""
        return platform_messages.SYSTEM

    def recognises(self, delivery: Delivery) -> bool:
        """Whether a message is in the platform's form."""
        return platform_messages.is_platform_job(delivery)

    def parse(self, delivery: Delivery) -> Job:
        """Read a message. Raises `PoisonError`."""
        return platform_messages.job_of(delivery)

    async def handle(self, job: Job, context: Context) -> Outcome:
        """Do what the job asks for. Raises `TransientError`, `OverloadError`, `NotYetError`, `PermanentError`."""
        request = platform_messages.request_of(job)
        context.report(0.0, request.job_type)
        match request:
            case platform_messages.LabCategorization() | platform_messages.PendingPass(job_type="process_pending_labs"):
                await self._labs.hasten(request.user_id)
            case _:
                pass
        for _ in range(_MOST_WAITS):
            try:
                return await self._outcome(job, request)
            except NotYetError as error:
                await asyncio.sleep(error.retry_after)
        return await self._outcome(job, request)

    async def _outcome(self, job: Job, request: platform_messages.PlatformJob) -> Outcome:
        result: Mapping[str, Any]
        match request:
            case platform_messages.LoincMapping():
                result = await self._labs.map_name(request.test_name, request_id=job.key)
            case platform_messages.LabCategorization(user_id=int(user), document_id=int(document), tests=tests) if tests:
                today = datetime.now(UTC).date()
                days = printed_days(tests, known_on=min(request.submitted_at or today, today))
                told = await self._labs.roll_document(user, document, tests, days=days)
                result = {**_facts(await self._labs_left(user, told=told)), **_ambiguous(days)}
            case platform_messages.LabCategorization():
                if request.tests:
                    _log.warning("tests_left_out", reason="the job tells no user or no document that they are of")
                result = _facts(await self._labs_left(request.user_id))
            case platform_messages.PendingPass(job_type="process_pending_labs"):
                result = _facts(await self._labs_left(request.user_id))
            case platform_messages.PendingPass():
                result = _facts(await self._until_empty(_KINDS[request.job_type], request.user_id))
            case _:
                raise TypeError(type(request))
        return Outcome(succeeded=True, result={"job_type": request.job_type, **result})

    def failure(self, job: Job, reason: str) -> Outcome:
        """The outcome of a job that is given up."""
        result = {"error": "the job could not be done", "reason": reason}
        return Outcome(succeeded=False, result=result, events=self._dead(job, reason))

    def _dead(self, job: Job, reason: str) -> tuple[Event, ...]:
        """The job for the queue that its operators look at, in the form that it came in."""
        if not self._dead_queue:
            return ()
        told = {"JobType": "job_type", "Priority": "priority", "UserId": "user_id"}
        attributes = {name: str(job.request[field]) for name, field in told.items() if job.request.get(field) is not None}
        body = json.dumps(job.request, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        attributes["Reason"] = reason[:_LONGEST_REASON]
        return (Event(type="failed", destination=f"sqs:{self._dead_queue}", body=body, attributes=attributes),)

    async def _until_empty(self, kind: str, user: int | None) -> Rolled:
        return await until_empty([self._rollups[kind]], stop=asyncio.Event(), user=user)

    async def _labs_left(self, user: int | None, *, told: Rolled | None = None) -> Rolled:
        """`told`: what was done before. Raises `TransientError` where reports failed that may go better soon, the others being done."""
        whole = (told or Rolled()) + await self._until_empty("labs", user)
        if whole.postponed:
            raise TransientError(f"the inference server failed over {whole.postponed} reports; {whole.taken} others are done")
        return whole


def _ambiguous(days: PrintedDays) -> Mapping[str, Any]:
    """What people may want to look at: days are taken for one of several that they may be."""
    if not days.ambiguous:
        return {}
    _log.warning("ambiguous_dates", dates=len(days.ambiguous), reason="the job's result tells them, and which days were taken")
    return {"ambiguous_dates": {text: list(readings) for text, readings in days.ambiguous.items()}}


def _facts(rolled: Rolled) -> Mapping[str, Any]:
    return {"rows": rolled.taken, "failed_rows": rolled.failed}
