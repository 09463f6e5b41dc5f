"""What the card platform asks of its worker over HTTP: `GET /health` of its task definition, and `GET /metrics` as JSON."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.errors import BridgeError
from bridge.moments import moment_text
from bridge.sources.port import QueueLevel


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the answers are made of."""

    # As the platform names where it runs: production, staging.
    environment: str
    # The lists of documents for its GPU and for its CPU; empty for one that is not served.
    gpu_queue: str
    cpu_queue: str
    gpu_enabled: bool
    # Whether a GPU is to be there, and the container is not kept from it.
    has_gpu: bool
    falls_back: bool
    # Whether the inference server takes requests.
    server_ready: Callable[[], Awaitable[bool]]
    # Cases that wait for the review service, and whether that is left alone.
    cases_waiting: Callable[[], Awaitable[int]]
    reviews_open: Callable[[], bool]


class CardRoutes:
    """Answers in the platform's shape."""

    def __init__(self, facts: CardFacts) -> None:
        self._facts = facts
        self._began = time.monotonic()

    def routes(self) -> Sequence[Route]:
        """What is served beside the bridge's own paths."""
        return [Route("/health", self._health)]

    async def metrics(self, levels: Sequence[QueueLevel] | None, in_flight: int) -> Mapping[str, Any]:
        """The answer to `GET /metrics` for those who do not want Prometheus' text. What is out of reach is null, and `ok` is false then.

        `levels`: of the queues that jobs come from; None while they do not tell. `in_flight`: documents being read.
        """
        facts = self._facts
        cases = await _or_none(facts.cases_waiting)
        queues = {
            "gpuQueueLength": _length(levels, facts.gpu_queue),
            "cpuQueueLength": _length(levels, facts.cpu_queue),
            "gpuActiveJobs": in_flight,
            "buli2RetryQueueLength": cases,
        }
        return {
            "ok": None not in queues.values(),
            "metrics": {
                **self._running(),
                "queues": queues,
                "gpuWorker": {
                    "isRunning": True,
                    "isGPUAvailable": facts.has_gpu and await facts.server_ready(),
                    "isGPUEnabled": facts.gpu_enabled,
                    "activeJobsCount": in_flight,
                    "autoFallbackEnabled": facts.falls_back,
                },
                "circuitBreaker": {"buli2": "OPEN" if facts.reviews_open() else "CLOSED"},
                # Figures are told when they are asked for, and never wait to be sent.
                "metricsBuffer": {"size": 0},
            },
        }

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"ok": True, "status": "ok", **self._running(), "ocrEngine": "lamina", "temporalConfigured": False})

    def _running(self) -> dict[str, Any]:
        return {
            "timestamp": moment_text(),
            "uptime": round(time.monotonic() - self._began, 3),
            "environment": self._facts.environment,
        }


def _length(levels: Sequence[QueueLevel] | None, queue: str) -> int | None:
    if levels is None:
        return None
    return next((None if math.isnan(level.waiting) else int(level.waiting) for level in levels if level.queue == queue), 0)


async def _or_none(ask: Callable[[], Awaitable[int]]) -> int | None:
    try:
        return await ask()
    except BridgeError:
        return None
