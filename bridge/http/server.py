"""The HTTP server, in the event loop of the worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import structlog
import uvicorn
from starlette.types import ASGIApp

from bridge.errors import ConfigurationError

_log = structlog.get_logger()


class HttpServer:
    """Serves an application at `address` (host:port; port 0 for any that is free)."""

    def __init__(self, application: ASGIApp, address: str) -> None:
        self._socket = _bound(address)
        config = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2)
        self._server = _QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self._socket.getsockname()[:2]
        return f"{host}:{port}"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="http")
        _log.info("http_listening", address=self.address)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._socket.close()


class _QuietServer(uvicorn.Server):
    """Leaves the signals to the program that it is part of."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing is captured."""
        yield


def _bound(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128)
    except OSError as error:
        raise ConfigurationError(
            f"BRIDGE_HTTP: cannot listen on {address} ({_reason(error)}); set it to a free address, or to `off`"
        ) from error


def _reason(error: OSError) -> str:
    # Python puts the address into the text of some errors once more.
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
