"""The real inference server, started as its own process and signalled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


class ServerProcess:
    """One running `inference-server serve`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        told = self.wait_for("listening")
        self.grpc: str = told["grpc"]
        self.http: str = told["http"]

    def events(self) -> list[dict[str, Any]]:
        """What it logged so far."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def wait_for(self, event: str, *, seconds: float = 100.0) -> dict[str, Any]:
        """The first log entry of an event, waiting for it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for entry in self.events():
                if entry["event"] == event:
                    return entry
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the server did not log {event!r}; its log:\n{self._log.read_text(encoding='utf-8')}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def wait(self, *, seconds: float = 60.0) -> int:
        """Its exit status."""
        return self.process.wait(seconds)

    def has_left_nothing(self) -> bool:
        """Whether neither it nor a child of it runs."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False


@contextmanager
def running_server(models: Path, folder: Path, *flags: str, within: Sequence[str] = ()) -> Iterator[ServerProcess]:
    """Start a server on free ports and end it afterwards; its log and caches go to `folder`. `within`: the command that runs it."""
    log = folder / f"server-{time.monotonic_ns()}.log"
    command = [*within, sys.executable, "-m", "inference_server", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    command += ["--models", str(models), "--engine-cache", str(folder / "engines"), *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERENCE_")}
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdout=stderr, cwd=folder, env=environment, start_new_session=True)
    try:
        yield ServerProcess(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)
