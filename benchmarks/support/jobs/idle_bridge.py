"""An idle bridge on SQS: from the start of its process to its first receive, and the memory that it then holds."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.child_environment import child_environment
from benchmarks.support.process_tree import cpu_seconds, memory_bytes
from tests.support.child_processes import resident_bytes, wait_or_kill
from tests.support.servers.ministack import Ministack

_RECEIVE = b"AmazonSQS.ReceiveMessage"
_START_SECONDS = 60.0
# What a bridge holds is read so long after its first receive.
_SETTLE_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class Idle:
    """One bridge that had nothing to do."""

    # From the start of its process until the emulator saw it ask for messages.
    seconds: float
    # Processor time that its process had used by then, which other work on the machine disturbs less.
    processor_seconds: float
    # In memory, shared libraries counted whole; and with those counted by their share.
    resident_bytes: int
    proportional_bytes: int


class ReceiveWatch:
    """Stands before the emulator and notes when it is first asked for messages."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.first_receive = threading.Event()
        # By the monotonic clock.
        self.received_at = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        """Let nobody in any more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target_port))
            for source, target, watched in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, target, watched), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, watched: bool) -> None:
        try:
            while chunk := source.recv(65536):
                if watched and _RECEIVE in chunk and not self.first_receive.is_set():
                    self.received_at = time.monotonic()
                    self.first_receive.set()
                target.sendall(chunk)
        except OSError:
            pass
        finally:
            target.close()


def measure_idle(folder: Path, emulator: Ministack, database: str) -> Idle:
    """Start `bridge run` on a queue of SQS that exists, and end it again. Raises `TimeoutError`."""
    watch = ReceiveWatch(int(emulator.endpoint.rpartition(":")[2]))
    started = time.monotonic()
    try:
        with running_bridge(folder, emulator, database, endpoint=f"http://127.0.0.1:{watch.port}") as process:
            if not watch.first_receive.wait(_START_SECONDS):
                raise TimeoutError(f"the bridge received nothing; its log ends with: {(folder / 'idle.log').read_text()[-500:]}")
            processor_seconds = cpu_seconds(process.pid)
            time.sleep(_SETTLE_SECONDS)
            return Idle(
                processor_seconds=processor_seconds,
                seconds=watch.received_at - started,
                resident_bytes=resident_bytes(process.pid),
                proportional_bytes=memory_bytes(process.pid),
            )
    finally:
        watch.close()


def make_queues(folder: Path, emulator: Ministack, database: str) -> None:
    """What `bridge topology apply` makes, and the database's newest schema."""
    for command in (["topology", "apply"], ["migrate"]):
        subprocess.run(
            _program(*command), env=_variables(emulator, database, emulator.endpoint), cwd=folder, check=True, capture_output=True
        )


@contextmanager
def running_bridge(folder: Path, emulator: Ministack, database: str, *, endpoint: str) -> Iterator[subprocess.Popen[bytes]]:
    """`bridge run` with all that it has: health and metrics over HTTP, the client of the inference server, the ledger."""
    with (folder / "idle.log").open("ab") as log:
        process = subprocess.Popen(_program("run"), env=_variables(emulator, database, endpoint), cwd=folder, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        wait_or_kill(process, seconds=20)


def _program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bridge", *arguments]


def _variables(emulator: Ministack, database: str, endpoint: str) -> dict[str, str]:
    own = {"BRIDGE_DATABASE": database, "BRIDGE_SQS_QUEUES": "jobs", "BRIDGE_AWS_ENDPOINT": endpoint, "BRIDGE_HTTP": "127.0.0.1:0"}
    return child_environment({**emulator.environment(), **own})
