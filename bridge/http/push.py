"""Where Pub/Sub pushes to."""

from __future__ import annotations

import math

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.errors import BridgeError, OverloadError, PoisonError
from bridge.google.refusals import NotAllowedError, NotAuthenticatedError
from bridge.sources.pubsub_push import PushInbox

_log = structlog.get_logger()
# Pub/Sub's 10 MB in base64, and their envelope.
_LARGEST_BYTES = 15 * 1024 * 1024
# What an error is to Pub/Sub: anything but a success and it pushes again. The first that fits; what is not here is 503.
_STATUSES: tuple[tuple[type[BridgeError], int], ...] = (
    (NotAuthenticatedError, 401),
    (NotAllowedError, 403),
    (PoisonError, 400),
    (OverloadError, 429),
)


class PushRoute:
    """Answers `POST /push`: 204 once the message is kept."""

    def __init__(self, inbox: PushInbox) -> None:
        self._inbox = inbox

    def route(self) -> Route:
        """As the application takes it."""
        return Route("/push", self._push, methods=["POST"])

    async def _push(self, request: Request) -> Response:
        try:
            # Strangers are not read.
            await self._inbox.check(request.headers.get("authorization", ""))
            content = await _content(request)
            if content is None:
                return JSONResponse({"error": "too large", "reason": f"a push has {_LARGEST_BYTES} bytes at most"}, status_code=413)
            await self._inbox.accept(content)
        except ClientDisconnect:
            return Response(status_code=400)
        except BridgeError as error:
            return _refusal(error)
        return Response(status_code=204)


async def _content(request: Request) -> bytes | None:
    """The body; None when it is too large."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _LARGEST_BYTES:
            return None
    return bytes(content)


def _refusal(error: BridgeError) -> Response:
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 503)
    _log.warning("push_refused", status=status, reason=str(error))
    headers = {}
    if isinstance(error, NotAuthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, OverloadError):
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return JSONResponse({"error": type(error).__name__.removesuffix("Error"), "reason": str(error)}, status_code=status, headers=headers)
