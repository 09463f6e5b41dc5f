"""Real processes, forked from a server that has done the imports: each starts in milliseconds and can be killed."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_IMPORTED_ONCE = [
    "tests.support.trial_bridge",
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


def bridge(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None, seconds: float = 60, stop_after: float | None = None
) -> Finished:
    """Run the bridge's command line in a folder, with nothing in its environment but what is given. `stop_after`: seconds until SIGTERM."""
    with TemporaryDirectory() as outputs:
        out, err = Path(outputs) / "out", Path(outputs) / "err"
        process = start(_bridge, list(arguments), folder, dict(environment or {}), out, err)
        if stop_after is not None:
            process.join(stop_after)
            process.terminate()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"bridge {' '.join(arguments)} did not end in {seconds} s: {err.read_text()[-2000:]}")
        return Finished(status=process.exitcode, out=out.read_text(), err=err.read_text())


def start_bridge(*arguments: str, folder: Path, environment: Mapping[str, str], log: Path) -> BaseProcess:
    """Start the bridge's command line in a folder, with this environment and no other; what it tells is added to `log`."""
    return start(_bridge_alone, list(arguments), folder, dict(environment), log)


def _bridge_alone(arguments: list[str], folder: Path, environment: dict[str, str], log: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    send_output_to(log, log)
    _run(arguments, folder)


def _bridge(arguments: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path) -> None:
    send_output_to(out, err)
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        del os.environ[name]
    os.environ.update({"COLUMNS": "200", **environment})
    _run(arguments, folder)


def _run(arguments: list[str], folder: Path) -> None:
    os.chdir(folder)
    sys.argv = ["bridge", *arguments]

    from bridge.__main__ import main

    main()
