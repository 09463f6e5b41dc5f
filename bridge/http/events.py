"""How a job gets on, as server-sent events: read from the ledger, so that any bridge tells of any job, whoever works on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from bridge.errors import BridgeError
from bridge.ledger.port import JobRecord, State

# An event a second at most.
_LOOK_SECONDS = 1.0
# A comment after so long a silence keeps proxies from closing the connection.
_HEARTBEAT_SECONDS = 10.0
# How long a client waits before it connects again.
_RETRY_MILLISECONDS = 2000
_MOST_STREAMS = 200
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_ENDS = {State.SUCCEEDED: "completed", State.FAILED: "failed"}

Find = Callable[[], Awaitable[JobRecord | None]]
Facts = Callable[[JobRecord], Mapping[str, Any]]


class JobEvents:
    """Serves streams: `progress` whenever something has changed, and `completed` or `failed` in the end, each with the job as data.

    An event's id is the revision of the job's row; a client that has seen it (`Last-Event-ID`) is not told again.
    """

    def __init__(
        self, *, look_seconds: float = _LOOK_SECONDS, heartbeat_seconds: float = _HEARTBEAT_SECONDS, most_streams: int = _MOST_STREAMS
    ) -> None:
        """`most_streams`: at once; others are asked to come again."""
        self._look_seconds = look_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._most_streams = most_streams
        self._streams = 0

    async def respond(self, request: Request, find: Find, facts: Facts) -> Response | None:
        """The stream of a job; None when there is none. 204 ends the connecting again of a client that has seen the end.

        Raises `TransientError` when the ledger is out of reach.
        """
        record = await find()
        if record is None:
            return None
        seen = _number(request.headers.get("last-event-id", ""))
        if record.state in _ENDS and seen == record.revision:
            return Response(status_code=204)
        if self._streams >= self._most_streams:
            reason = f"{self._streams} streams are open, and no more are served; ask again, or ask for the job without events"
            return JSONResponse({"error": "too many streams", "reason": reason}, status_code=503, headers={"Retry-After": "5"})
        return StreamingResponse(self._stream(find, facts, seen), media_type="text/event-stream", headers=_HEADERS)

    async def _stream(self, find: Find, facts: Facts, seen: int | None) -> AsyncIterator[str]:
        self._streams += 1
        clock = asyncio.get_running_loop().time
        try:
            yield f"retry: {_RETRY_MILLISECONDS}\n\n"
            told_at = clock()
            while True:
                record = await _looked(find)
                if record is not None and record.revision != seen:
                    yield _event(record, facts)
                    seen, told_at = record.revision, clock()
                    if record.state in _ENDS:
                        return
                elif clock() - told_at >= self._heartbeat_seconds:
                    yield ": heartbeat\n\n"
                    told_at = clock()
                await asyncio.sleep(self._look_seconds)
        finally:
            self._streams -= 1


async def _looked(find: Find) -> JobRecord | None:
    try:
        return await find()
    except BridgeError:  # the ledger will be back
        return None


def _event(record: JobRecord, facts: Facts) -> str:
    data = json.dumps(facts(record), ensure_ascii=False, separators=(",", ":"))
    return f"id: {record.revision}\nevent: {_ENDS.get(record.state, 'progress')}\ndata: {data}\n\n"


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
