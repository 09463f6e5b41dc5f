"""Health, readiness, metrics and job status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.errors import BridgeError
from bridge.http.events import JobEvents
from bridge.http.figures import Figures
from bridge.http.metrics import Metrics
from bridge.ledger.facts import impersonal_facts
from bridge.ledger.port import Jobs
from bridge.sources.port import QueueLevel
from bridge.vitals import Vitals

# Raises an error that says what is wrong.
Probe = Callable[[], Awaitable[None]]
# Takes what lies in the queues that jobs come from; None while they do not tell.
PlatformMetrics = Callable[[Sequence[QueueLevel] | None], Awaitable[Mapping[str, Any]]]
_PROBE_SECONDS = 3.0
# What asks for figures as Prometheus reads them.
_OF_PROMETHEUS = ("text/plain", "application/openmetrics-text")


class Routes:
    """What the bridge answers over HTTP."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        figures: Figures,
        events: JobEvents,
        probes: Mapping[str, Probe],
        more: Sequence[Route] = (),
        vitals: Vitals | None = None,
        draining: Callable[[], bool] = lambda: False,
        platform_metrics: PlatformMetrics | None = None,
    ) -> None:
        """`probes`: what must be reachable for new work to be done, by name. `more`: what platforms ask; they share `events`.

        `vitals`: tells what is stuck. `draining`: whether no new work is taken any more. `platform_metrics`: what those get of `/metrics`
        who do not ask for Prometheus' text, as clients of a platform's old worker do.
        """
        self._jobs = jobs
        self._figures = figures
        self._probes = probes
        self._more = more
        self._events = events
        self._vitals = vitals or Vitals()
        self._draining = draining
        self._platform_metrics = platform_metrics

    def application(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/healthz", self._live),
                Route("/livez", self._live),
                Route("/readyz", self._ready),
                Route("/metrics", self._metrics),
                Route("/jobs/{key:path}/events", self._job_events),
                Route("/jobs/{key:path}", self._job),
                *self._more,
            ],
            exception_handlers={BridgeError: _unavailable},
        )

    async def _live(self, _request: Request) -> Response:
        """503 when a loop or a heartbeat is stuck: then only a new process helps. What is out of reach is the readiness' business."""
        stuck = {who: f"no sign of life for {seconds:.0f} s more than it should take" for who, seconds in self._vitals.stuck().items()}
        return JSONResponse({"status": "stuck", "stuck": stuck}, status_code=503) if stuck else JSONResponse({"status": "ok"})

    async def _ready(self, _request: Request) -> Response:
        """503 while something is out of reach, or once the bridge drains. Jobs are kept meanwhile; none is lost."""
        checks = dict(zip(self._probes, await asyncio.gather(*map(_checked, self._probes.values())), strict=True))
        if self._draining():
            checks["worker"] = "draining: no new jobs are taken"
        ready = all(answer == "ok" for answer in checks.values())
        return JSONResponse({"status": "ready" if ready else "not ready", "checks": checks}, status_code=200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        if self._platform_metrics and _wants_json(request):
            return JSONResponse(await self._platform_metrics(await self._figures.levels()))
        return Response(await self._figures.render(), media_type=Metrics.content_type)

    async def _job(self, request: Request) -> Response:
        key = request.path_params["key"]
        record = await self._jobs.find(key)
        return _unknown(key) if record is None else JSONResponse(impersonal_facts(record))

    async def _job_events(self, request: Request) -> Response:
        key = request.path_params["key"]
        return await self._events.respond(request, lambda: self._jobs.find(key), impersonal_facts) or _unknown(key)


def _wants_json(request: Request) -> bool:
    """Whether JSON is named, or nothing is: the platform's worker knows no other. Prometheus names its text."""
    accepted = request.headers.get("accept", "")
    if "application/json" in accepted or request.query_params.get("format") == "json":
        return True
    return not any(kind in accepted for kind in _OF_PROMETHEUS)


def _unknown(key: str) -> Response:
    reason = f"no job, or more than one, has a key that starts with {key!r}; `bridge jobs` lists them"
    return JSONResponse({"error": "not found", "reason": reason}, status_code=404)


async def _unavailable(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "unavailable", "reason": str(error)}, status_code=503)


async def _checked(probe: Probe) -> str:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            await probe()
    except BridgeError as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {_PROBE_SECONDS:g} s"
    return "ok"
