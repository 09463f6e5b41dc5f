"""Small calls over HTTP to agents and metadata services of the machine: no proxy, no redirect, short answers."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from bridge.errors import ConfigurationError, TransientError

_MOST_BYTES = 64 * 1024
_CALL_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was answered."""

    status: int
    body: bytes


class LocalService:
    """A service at a base URL, such as http://169.254.169.254."""

    def __init__(self, url: str, *, variable: str) -> None:
        """`variable`: where the URL was set. Raises `ConfigurationError`."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigurationError(f"{variable}: {url!r} is no address of a service on this machine; expected http://host[:port][/path]")
        self._address = (parts.hostname, parts.port or http.client.HTTP_PORT)
        self._path = parts.path.rstrip("/")

    async def call(self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One call. Raises `TransientError` when nothing sensible comes back in time."""
        return await asyncio.to_thread(self._call, method, self._path + path, body, dict(headers or {}))

    def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        host, port = self._address
        connection = http.client.HTTPConnection(host, port, timeout=_CALL_SECONDS)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(status=response.status, body=response.read(_MOST_BYTES))
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"{method} http://{host}:{port}{path}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()
