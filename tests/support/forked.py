"""Real processes, forked from a server that has done the imports: each starts in milliseconds and can be killed."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_IMPORTED_ONCE = [
    "tests.support.bridge.trial_bridge",
    "bridge.__main__",
    "bridge.commands.display",
    "bridge.http.metrics",
    "bridge.database.libpq",
    "bridge.ledger.postgres",
    "bridge.ledger.sqlite",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "alembic.command",
    "boto3",
    "botocore.config",
    "bridge.google.tokens",
    "bridge.http.push",
    "bridge.sources.pubsub_pull",
    "bridge.sources.redis_list",
]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a command ended."""

    status: int
    out: str
    err: str


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that runs `target`, a function of a module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED_ONCE)
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def send_output_to(out: Path, err: Path) -> None:
    """Let the descriptors 1 and 2 of this process lead to files."""
    for descriptor, file in ((1, out), (2, err)):
        opened = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


class Command:
    """A command of the bridge's command line as a process of its own."""

    def __init__(self, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], given: str = "") -> None:
        """`environment`: all of it. `given`: what it reads from standard input."""
        self._said = f"bridge {' '.join(arguments)}"
        self._outputs = TemporaryDirectory()
        names = [Path(self._outputs.name) / name for name in ("out", "err", "in")]
        self._out, self._err, reads = names
        reads.write_text(given)
        self.process = start(_bridge, list(arguments), folder, dict(environment), *names)

    @property
    def returncode(self) -> int | None:
        """Its exit status, once it has ended."""
        return self.process.exitcode

    def terminate_once(self, said: str, *, seconds: float) -> None:
        """Send SIGTERM once it has written something to standard error."""
        until = time.monotonic() + seconds
        while said not in (told := self._err.read_text() if self._err.exists() else ""):
            assert time.monotonic() < until, f"{self._said} did not say {said!r} in {seconds:g} s: {told[-2000:]}"
            assert self.process.is_alive(), f"{self._said} ended by itself: {told[-2000:]}"
            time.sleep(0.05)
        self.process.terminate()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it wrote to standard output and to standard error, once it has ended. `timeout`: seconds, after which it is killed."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"{self._said} did not end in {timeout:g} s: {self._err.read_text()[-2000:]}")
        with self._outputs:
            return self._out.read_text(), self._err.read_text()


def bridge(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None, given: str = "", stop_once: str = "") -> Finished:
    """Run the bridge's command line in a folder, with no other settings. `given`: its input. `stop_once`: SIGTERM comes once it says so."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    command = Command(arguments, folder=folder, environment={**inherited, "COLUMNS": "200", **(environment or {})}, given=given)
    try:
        if stop_once:
            command.terminate_once(stop_once, seconds=60)
        out, err = command.communicate(timeout=60)
    finally:
        if command.process.is_alive():
            command.process.kill()
        command.process.join()
    return Finished(status=command.returncode or 0, out=out, err=err)


def start_bridge(*arguments: str, folder: Path, environment: Mapping[str, str], log: Path) -> BaseProcess:
    """Start the bridge's command line in a folder, with this environment and no other; what it tells is added to `log`."""
    return start(_bridge, list(arguments), folder, dict(environment), log, log)


def _bridge(arguments: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path, reads: Path | None = None) -> None:
    send_output_to(out, err)
    if reads:
        sys.stdin = reads.open()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["bridge", *arguments]

    from bridge.__main__ import main

    main()
