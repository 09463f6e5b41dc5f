"""Lets peers in: binds, accepts as many connections as there may be, and has TLS agreed on in time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Protocol

import structlog

from inference_server.service.http2.connection import Connection

# Connections that the system keeps for us while we are busy.
_BACKLOG = 1024
# Seconds to wait when the system has no place for another connection.
_FULL_SECONDS = 0.1
# Seconds for a peer to say that it has read the end of TLS.
_SHUTDOWN_SECONDS = 2.0

_log = structlog.get_logger()


# Makes what one connection speaks TLS with.
Tls = Callable[[], ssl.SSLContext]


class Observer(Protocol):
    """Counts connections."""

    def opened(self) -> None:
        """A peer has connected, and agreed on TLS where there is any."""

    def closed(self, reason: str) -> None:
        """It is gone."""

    def failed(self, reason: str) -> None:
        """One did not come so far: `handshake`; or there were too many: `limit`."""


class Listener:
    """Accepts the connections of one server."""

    def __init__(self, connect: Callable[[], Connection], *, most: int, tls: Tls | None, seconds: float, observer: Observer) -> None:
        """`most`: connections at a time; `seconds`: for a peer to agree on TLS."""
        self._connect = connect
        self._most = most
        self._tls = tls
        self._seconds = seconds
        self._observer = observer
        # Connections, those among them that still agree on TLS.
        self._open = 0
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._entering: set[asyncio.Task[None]] = set()
        self._is_full = False

    def bind(self, address: str) -> int:
        """Bind host:port at once and tell the port. Raises `OSError`."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        number = int(port)
        if not host or host == "::":
            self._sockets = [socket.create_server(("", number), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)]
            return int(self._sockets[0].getsockname()[1])
        found = dict.fromkeys((family, at[0]) for family, *_, at in socket.getaddrinfo(host, number, type=socket.SOCK_STREAM))
        for family, name in found:
            self._sockets.append(socket.create_server((str(name), number), family=family, backlog=_BACKLOG))
            number = int(self._sockets[0].getsockname()[1])
        return number

    def start(self) -> None:
        """Let peers in from now on."""
        for bound in self._sockets:
            bound.setblocking(False)
            self._accepting.append(asyncio.get_running_loop().create_task(self._accept(bound)))

    async def stop(self) -> None:
        """Let nobody in any more."""
        tasks = [*self._accepting, *self._entering]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for bound in self._sockets:
            bound.close()

    def left(self) -> None:
        """A connection is gone."""
        self._open -= 1

    async def _accept(self, bound: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, _ = await loop.sock_accept(bound)
            except Exception as error:
                # The system's tables are full, or the peer is gone already. Whatever it is, the next one is let in.
                _log.warning("connection_not_accepted", reason=getattr(error, "strerror", None) or type(error).__name__)
                await asyncio.sleep(_FULL_SECONDS)
                continue
            if self._open >= self._most:
                self._refuse(peer)
                continue
            self._is_full = False
            self._open += 1
            task = loop.create_task(self._enter(peer))
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)

    def _refuse(self, peer: socket.socket) -> None:
        """Say nothing: a peer that cannot connect tries another server. Logged once each time that places run out."""
        self._observer.failed("limit")
        peer.close()
        if not self._is_full:
            self._is_full = True
            _log.warning("too_many_connections", most=self._most)

    async def _enter(self, peer: socket.socket) -> None:
        connection = self._connect()
        bounds = {"ssl_handshake_timeout": self._seconds, "ssl_shutdown_timeout": _SHUTDOWN_SECONDS} if self._tls else {}
        try:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, peer, ssl=self._tls and self._tls(), **bounds)
        except (OSError, ssl.SSLError) as error:
            _log.debug("connection_not_secured", reason=type(error).__name__)
            self._observer.failed("handshake")
        except Exception:
            _log.exception("connection_broken")
        finally:
            if not connection.peer:
                self._open -= 1
                peer.close()
