"""Health and metrics over HTTP, for probes and Prometheus."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator, Mapping

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from inference_server.errors import ConfigurationError
from inference_server.service.lifecycle import Lifecycle

_TRITON_HEAD = re.compile(rb"^(# (?:HELP|TYPE) nv_\w+)_total(?= )", re.MULTILINE)


def health_app(
    *,
    lifecycle: Lifecycle,
    registry: CollectorRegistry,
    broken_models: Callable[[], Mapping[str, str]],
    degraded: Callable[[], Mapping[str, str]],
) -> Starlette:
    """`/healthz` (live), `/readyz` (ready, with reasons) and `/metrics`.

    `broken_models` gives the reason by name:version; `degraded` by service, of those that do not answer while others do.
    """

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        reasons = [] if lifecycle.ready else [lifecycle.phase.value]
        body = {"ready": lifecycle.ready, "reasons": reasons, "degraded": dict(degraded()), "broken_models": dict(broken_models())}
        return JSONResponse(body, status_code=200 if lifecycle.ready else 503)

    async def metrics(request: Request) -> Response:
        return Response(_exposition(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])


def _exposition(registry: CollectorRegistry) -> bytes:
    """All metrics as text. The library adds `_total` to the head of each counter; those under Triton's names have none."""
    return _TRITON_HEAD.sub(rb"\1", generate_latest(registry))


class HttpServer(uvicorn.Server):
    """Runs in the loop of its owner, who alone handles signals."""

    def __init__(self, app: Starlette, *, address: str) -> None:
        """Binds at once. Raises `ConfigurationError` when the address cannot be had."""
        super().__init__(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2))
        self._socket = _bind(address)
        host, port = self._socket.getsockname()[:2]
        self.address = f"{host}:{port}"

    async def run_until_stopped(self) -> None:
        """Serve until `stop`."""
        try:
            await self.serve(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        """End `run_until_stopped`."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host.strip("[]"), int(port)))
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            f"INFERENCE_HTTP: {address} cannot be listened on ({error.strerror or error}); choose another address."
        ) from error
    return bound
