"""What the platform asks the slide worker over HTTP: `POST /analyze`, and how a job stands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.envelopes import native
from bridge.errors import PoisonError
from bridge.http.events import JobEvents
from bridge.ledger.port import JobRecord, Jobs, State
from bridge.moments import moment_text
from bridge.systems.wsi import platform_messages
from bridge.tracing.context import TRACEPARENT, TRACESTATE, carrier

# How long a call waits for its job: below the 100 s after which the platform's worker gives a call up.
_PATIENCE_SECONDS = 90.0
_LOOK_SECONDS = 0.2
_MOST_BODY_BYTES = 64 * 1024
# The platform's words.
_STATUSES = {
    State.QUEUED: "Pending",
    State.RUNNING: "Processing",
    State.WAITING: "Processing",
    State.SUCCEEDED: "Completed",
    State.FAILED: "Failed",
}


class WsiRoutes:
    """Answers in the platform's shapes."""

    def __init__(self, *, jobs: Jobs, events: JobEvents, submit: Callable[[bytes], Awaitable[JobRecord | None]]) -> None:
        """`submit`: sends a message of ours to where jobs come from."""
        self._jobs = jobs
        self._submit = submit
        self._events = events

    def routes(self) -> Sequence[Route]:
        """What is served."""
        return [
            Route("/analyze", self._analyze, methods=["POST"]),
            Route("/api/v1/wsi/jobs/{job_id}", self._job),
            Route("/api/v1/wsi/jobs/{job_id}/events", self._job_events),
        ]

    async def _analyze(self, request: Request) -> Response:
        """Have a slide analysed and wait for it. A call that came too early finds the same job when it is made again."""
        try:
            trace = carrier(request.headers.get(TRACEPARENT), request.headers.get(TRACESTATE))
            job = replace(platform_messages.posted_job(await _content(request)), trace=trace)
        except PoisonError as error:
            return _refusal(400, "bad request", str(error))
        except ClientDisconnect:
            return Response(status_code=400)
        await self._submit(native.write(job))
        clock = asyncio.get_running_loop().time
        until = clock() + _PATIENCE_SECONDS
        while clock() < until:
            record = await self._found(job.key)
            if record is not None and record.state is State.SUCCEEDED and record.result is not None:
                return JSONResponse({"resultS3Key": record.result["result_s3_key"]})
            if record is not None and record.state is State.FAILED:
                return _refusal(500, "failed", platform_messages.error_text(_reason(record)))
            await asyncio.sleep(_LOOK_SECONDS)
        return _refusal(
            504, "not done yet", f"the slide is still being analysed after {_PATIENCE_SECONDS:g} s; ask again with the same jobId"
        )

    async def _job(self, request: Request) -> Response:
        key = request.path_params["job_id"].lower()
        record = await self._found(key)
        return _unknown(key) if record is None else JSONResponse(platform_facts(record))

    async def _job_events(self, request: Request) -> Response:
        key = request.path_params["job_id"].lower()
        return await self._events.respond(request, lambda: self._found(key), platform_facts) or _unknown(key)

    async def _found(self, key: str) -> JobRecord | None:
        record = await self._jobs.find(key)
        return record if record is not None and record.key == key and record.system == platform_messages.SYSTEM else None


def platform_facts(record: JobRecord) -> dict[str, Any]:
    """A job as the platform shows it, and how far it is."""
    return {
        "id": record.key,
        "wsiUploadId": record.request.get("uploadid"),
        "status": _STATUSES[record.state],
        "resultS3Key": (record.result or {}).get("result_s3_key"),
        "errorMessage": platform_messages.error_text(_reason(record)) if record.state is State.FAILED else None,
        "createdAt": _moment(record.created_at),
        "completedAt": _moment(record.finished_at),
        "progress": round(record.progress, 4),
        "stage": record.stage,
        "tilesDone": record.units_done,
        "tilesTotal": record.units_total,
        "tilesPerSecond": record.units_per_second,
        "secondsLeft": record.seconds_left,
    }


async def _content(request: Request) -> dict[str, Any]:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BODY_BYTES:
            raise PoisonError(f"the body has more than {_MOST_BODY_BYTES} bytes")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PoisonError(f"the body is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise PoisonError("the body is no JSON object")
    return content


def _reason(record: JobRecord) -> str:
    return str((record.result or {}).get("reason") or record.last_error)


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else moment_text(datetime.fromtimestamp(seconds, tz=UTC))


def _unknown(key: str) -> Response:
    return _refusal(404, "not found", f"no job of the slide worker has the id {key!r}")


def _refusal(status: int, error: str, reason: str) -> Response:
    return JSONResponse({"error": error, "reason": reason}, status_code=status)
