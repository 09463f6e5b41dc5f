"""Reaches Cloud SQL through Google's connector: no address, no certificates, IAM if wished. Alone in importing it and asyncpg."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
from google.auth.exceptions import TransportError
from google.cloud.sql.connector import Connector, RefreshStrategy

from bridge.database.location import CloudSqlLocation
from bridge.database.postgres import LOCK_SECONDS, STATEMENT_SECONDS

# What the server ends by itself, in milliseconds.
SERVER_SETTINGS = {
    "application_name": "lamina-bridge",
    "statement_timeout": f"{STATEMENT_SECONDS * 1000:.0f}",
    "lock_timeout": f"{LOCK_SECONDS * 1000:.0f}",
    "idle_in_transaction_session_timeout": "60000",
}
# What Google's services answer for a while only.
_BUSY = frozenset({408, 429, 500, 502, 503, 504})


class AsyncpgConnections:
    """What all connections of asyncpg have in common."""

    url = "postgresql+asyncpg://"

    def alive(self, connection: Any) -> bool:
        """Whether the other side has not hung up: the event loop would have noticed."""
        return not connection.is_closed()

    def cut(self, connection: Any) -> None:
        """End the connection at once."""
        connection.terminate()

    def is_unreachable(self, error: BaseException | None) -> bool:
        """Whether connecting failed for a reason that passes: connection errors, and a server that is starting or full."""
        if type(error) is asyncpg.InterfaceError:  # a connection that is closed; what is derived from it are mistakes
            return True
        state = getattr(error, "sqlstate", None) or getattr(getattr(error, "__cause__", None), "sqlstate", None) or ""
        return state[:2] in {"08", "53", "57"}


class CloudSqlDriver(AsyncpgConnections):
    """Connects to one instance. Certificates are renewed when they are needed, since a bridge may be frozen for long."""

    def __init__(self, location: CloudSqlLocation) -> None:
        self._location = location
        self._connector: Connector | None = None

    @property
    def name(self) -> str:
        """Where it leads; without the password."""
        return str(self._location)

    async def connect(self) -> Any:
        """Open a connection."""
        place = self._location
        if self._connector is None:
            self._connector = Connector(
                loop=asyncio.get_running_loop(),
                ip_type=place.ip_type,
                enable_iam_auth=not place.password,
                refresh_strategy=RefreshStrategy.LAZY,
            )
        secret = {"password": place.password} if place.password else {}
        return await self._connector.connect_async(
            place.instance, "asyncpg", user=place.user, db=place.database, server_settings=SERVER_SETTINGS, **secret
        )

    def is_unreachable(self, error: BaseException | None) -> bool:
        """Whether connecting failed for a reason that passes; of Google's services too, which are asked for certificates and tokens."""
        busy = getattr(error, "retryable", False) or getattr(error, "status", 0) in _BUSY
        return busy or isinstance(error, TransportError) or super().is_unreachable(error)

    async def close(self) -> None:
        """Let the connector go."""
        if self._connector is not None:
            await self._connector.close_async()
            self._connector = None
