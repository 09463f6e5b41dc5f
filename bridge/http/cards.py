"""The health that the card platform's task definition asks for: `GET /health`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


class CardRoutes:
    """Answers in the platform's shape."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def routes(self) -> Sequence[Route]:
        """What is served."""
        return [Route("/health", self._health)]

    async def _health(self, _request: Request) -> Response:
        return JSONResponse(
            {
                "ok": True,
                "status": "ok",
                "uptime": round(time.monotonic() - self._began, 3),
                "timestamp": datetime.now(tz=UTC).isoformat(),
                "environment": "production",
                "ocrEngine": "lamina",
                "temporalConfigured": False,
            }
        )
