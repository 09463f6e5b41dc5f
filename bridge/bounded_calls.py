"""HTTP calls with one time for the whole of each: a timeout of a socket counts anew with each byte that comes."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class TimedRequest(urllib.request.Request):
    """A request whose connection is cut when its time is up, whatever it waits for then."""

    def __init__(self, url: str, data: bytes, headers: dict[str, str], *, method: str, seconds: float) -> None:
        super().__init__(url, data, headers, method=method)
        self._seconds = seconds
        self._lock = threading.Lock()
        self._is_late = False
        self._connection: http.client.HTTPConnection | None = None
        # A connection forgets its socket with the headers of the answer.
        self._socket: socket.socket | None = None

    @contextmanager
    def within_its_time(self) -> Iterator[None]:
        """Send it and read its answer within the block. Raises `TimeoutError` when that took too long."""
        timer = threading.Timer(self._seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            if self._is_late:
                raise self._late() from error
            raise
        finally:
            timer.cancel()
        # What is cut may look like an answer that has ended.
        if self._is_late:
            raise self._late()

    def goes_over(self, connection: http.client.HTTPConnection) -> None:
        """It is about to be sent over this."""
        self._connection = connection

    def is_connected(self, connection: http.client.HTTPConnection) -> None:
        """Raises `TimeoutError` when that took too long."""
        with self._lock:
            self._socket = connection.sock
            if self._is_late:
                raise self._late()

    def _cut(self) -> None:
        with self._lock:
            self._is_late = True
            # Where a proxy leads to the service, it is asked before the connection is there.
            cut = self._socket or getattr(self._connection, "sock", None)
            if cut is not None:
                with suppress(OSError):
                    # Not of TLS, which another thread may be in.
                    socket.socket.shutdown(cut, socket.SHUT_RDWR)

    def _late(self) -> TimeoutError:
        return TimeoutError(f"the call took more than {self._seconds:g} s")


class _Timed(urllib.request.AbstractHTTPHandler):
    def do_open(self, http_class: Any, req: urllib.request.Request, **facts: Any) -> http.client.HTTPResponse:
        """See `AbstractHTTPHandler`."""

        class Connection(http_class):  # type: ignore[misc]
            def connect(self) -> None:
                """Open it."""
                super().connect()
                if isinstance(req, TimedRequest):
                    req.is_connected(self)

        def connection(*arguments: Any, **more: Any) -> http.client.HTTPConnection:
            made: http.client.HTTPConnection = Connection(*arguments, **more)
            if isinstance(req, TimedRequest):
                req.goes_over(made)
            return made

        return super().do_open(connection, req, **facts)


class TimedHttp(_Timed, urllib.request.HTTPHandler):
    """For an opener of `TimedRequest`s."""


class TimedHttps(_Timed, urllib.request.HTTPSHandler):
    """For an opener of `TimedRequest`s over TLS."""
