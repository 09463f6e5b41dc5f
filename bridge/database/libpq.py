"""Reaches PostgreSQL through libpq. Alone in importing psycopg."""

from __future__ import annotations

import os
import re
import select
import socket
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bridge.database.location import PostgresLocation
from bridge.database.postgres import LOCK_SECONDS, STATEMENT_SECONDS
from bridge.errors import ConfigurationError

# Where nothing else is said. Times in seconds, but the last, which is in milliseconds.
_DEFAULTS = {
    "application_name": "lamina-bridge",
    "connect_timeout": "5",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
# What the server ends by itself, so that a bridge that hangs or is gone holds nobody up.
_LIMITS = (
    f"-c statement_timeout={STATEMENT_SECONDS * 1000:.0f} -c lock_timeout={LOCK_SECONDS * 1000:.0f} "
    "-c idle_in_transaction_session_timeout=60000"
)

# What waiting does not mend: a wrong password, database, user, or certificate.
_LASTING = re.compile(r"authentication|password|does not exist|pg_hba.conf|certificate|permission denied|not permitted")


class PsycopgDriver:
    """Connects by libpq's rules."""

    url = "postgresql+psycopg://"

    def __init__(self, location: PostgresLocation) -> None:
        """Raises `ConfigurationError`."""
        self._parameters = _parameters(location)
        # PgBouncer refuses start-up options that it was not told to ignore.
        self._limited = True

    @property
    def name(self) -> str:
        """Where it leads; without user and password."""
        given = self._parameters
        place = f"{given.get('host', '')}:{given['port']}" if given.get("port") else given.get("host", "")
        return f"postgresql://{place}/{given.get('dbname', '')}"

    async def connect(self) -> Any:
        """Open a connection. Nothing is prepared on the server, since PgBouncer may change it between two statements."""
        if self._limited:
            try:
                return await self._connect(options=f"{self._parameters.get('options', '')} {_LIMITS}".strip())
            except psycopg.OperationalError as error:
                if "unsupported startup parameter" not in str(error):
                    raise
                self._limited = False
        return await self._connect()

    def alive(self, connection: Any) -> bool:
        """Whether the server has not hung up: an idle connection has nothing to read."""
        if connection.closed:
            return False
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN)
        return not poll.poll(0)

    def cut(self, connection: Any) -> None:
        """Shut the socket down, which wakes whoever waits for it."""
        if connection.closed:
            return
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as copy:
            try:
                copy.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # gone already

    def is_unreachable(self, error: BaseException | None) -> bool:
        """Whether connecting failed for a reason that passes. libpq gives such errors no code, and those of the server one."""
        return isinstance(error, psycopg.OperationalError) and not _LASTING.search(str(error))

    async def close(self) -> None:
        """Nothing is kept."""

    async def _connect(self, **changes: str) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(make_conninfo("", **{**self._parameters, **changes}), prepare_threshold=None)


def _parameters(location: PostgresLocation) -> Mapping[str, str]:
    try:
        found = conninfo_to_dict(location.conninfo, **location.parameters)
    except psycopg.Error:
        # The library's own text may hold a part of the password.
        raise ConfigurationError(
            "BRIDGE_DATABASE cannot be read as a PostgreSQL address; check its keywords, and write @ : / ? # % "
            "in a user or password as %40 %3A %2F %3F %23 %25"
        ) from None
    given = {name: str(value) for name, value in found.items() if value is not None}
    return {**_DEFAULTS, **given}
