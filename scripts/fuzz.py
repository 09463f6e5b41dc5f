"""Sends the inference server what nobody should send, for ten minutes: random bytes, messages without meaning, damaged ones, broken frames.

Prints what was called, what was answered, and how the server's memory grew. Exit status 1: the server ended, blamed itself for what the
caller did (UNKNOWN, INTERNAL), hung, or grew.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, given, settings
from PIL import Image

from tests.support.child_processes import resident_bytes
from tests.support.inference_server.broken_frames import sessions, throw
from tests.support.inference_server.fuzzing import Call, Target, calls, fuzzed_server, is_wrong, methods, write_repository
from tests.support.inference_server.server_process import ServerProcess
from tests.support.models.built_models import built_models

_CALLS_A_ROUND = 500
_CONNECTIONS_A_ROUND = 50
# Share of the time after which memory counts: by then every path was walked and every arena taken.
_WARM_SHARE = 0.3
_MOST_GROWTH = 32 * 2**20


class Fuzz:
    """One run against one server."""

    def __init__(self, server: ServerProcess, seconds: float) -> None:
        self._server = server
        self._target = Target(server.grpc)
        self._started = time.monotonic()
        self._seconds = seconds
        self.failures: list[str] = []
        # Seconds since the start, and bytes.
        self.memory: list[tuple[float, int]] = []

    @property
    def calls(self) -> int:
        """Calls so far."""
        return self._target.statuses.total()

    @property
    def statuses(self) -> Counter[str]:
        """How often each status was answered."""
        return Counter({code.name: count for code, count in self._target.statuses.items()})

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def run(self) -> None:
        """Fuzz until the time is up or the server has ended."""
        number = 0
        while self.elapsed < self._seconds and self._server.process.poll() is None:
            number += 1
            self._round(number)
            self._round_of_frames(number)
            self.memory.append((self.elapsed, resident_bytes(self._server.process.pid)))
            if number % 10 == 1:
                print(
                    f"{self.elapsed:7.0f} s {self.calls:9} calls {self.memory[-1][1] / 2**20:8.1f} MiB {len(self.failures)} failures",
                    flush=True,
                )
        self._target.close()

    def broken_connections(self) -> list[str]:
        """What the server's log says of connections that it failed on itself."""
        return [str(entry) for entry in self._server.events() if entry["event"] == "connection_broken"]

    def growth(self) -> int | None:
        """Bytes that the server grew by, from the warm part's first tenth to its last; None when it was not measured."""
        warm = [size for at, size in self.memory if at >= _WARM_SHARE * self._seconds]
        tenth = max(len(warm) // 10, 1)
        return max(warm[-tenth:]) - max(warm[:tenth]) if warm else None

    def _round(self, seed: int) -> None:
        @hypothesis.seed(seed)
        @settings(max_examples=_CALLS_A_ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=_PHASES)
        @given(call=calls())
        def make(call: Call) -> None:
            if self._server.process.poll() is not None:
                return
            code, details = self._target.answer(call)
            if is_wrong(call, code, details) or self._server.process.poll() is not None:
                self.failures.append(f"{call.method.path} {code.name} {details}\n    {[message.hex() for message in call.messages]}")

        make()

    def _round_of_frames(self, seed: int) -> None:
        """Broken frames say nothing of their own: whoever calls next sees whether the server bears them."""
        port = int(self._server.grpc.rpartition(":")[2])
        paths = [method.path for method in methods()]

        @hypothesis.seed(seed)
        @settings(max_examples=_CONNECTIONS_A_ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=_PHASES)
        @given(chunks=sessions(paths))
        def connect(chunks: list[bytes]) -> None:
            if self._server.process.poll() is None:
                throw(port, chunks)

        connect()


# No shrinking: the calls that fail are printed, and there may be many.
_PHASES = (hypothesis.Phase.generate,)


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lamina-fuzz-") as name:
        folder = Path(name)
        write_repository(folder / "models")
        for model in built_models().iterdir():
            if model.is_dir() and not model.name.startswith((".", "_")):
                (folder / "models" / model.name).symlink_to(model)
        Image.new("RGB", (64, 48), (200, 180, 220)).save(folder / "slide.png")
        with fuzzed_server(folder / "models", folder) as server:
            server.wait_for("catalogue_ready", seconds=300)
            fuzz = Fuzz(server, arguments.seconds)
            fuzz.run()
            ended = server.process.poll()
            fuzz.failures += fuzz.broken_connections()
    return judge(fuzz, ended)


def judge(fuzz: Fuzz, ended: int | None) -> int:
    """Print what came of it; the exit status."""
    growth = fuzz.growth()
    print(f"{fuzz.calls} calls in {fuzz.elapsed:.0f} s; answers: {dict(fuzz.statuses.most_common())}")
    grown = "not measured" if growth is None else f"{growth / 2**20:.1f} MiB"
    print(f"failures: {len(fuzz.failures)}; server ended: {'no' if ended is None else ended}; growth once warm: {grown}")
    for failure in fuzz.failures[:20]:
        print(failure)
    return int(bool(fuzz.failures) or ended is not None or growth is None or growth > _MOST_GROWTH)


if __name__ == "__main__":
    raise SystemExit(main())
