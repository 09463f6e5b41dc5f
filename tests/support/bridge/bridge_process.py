"""The real bridge, started as its own process and signalled, and its command line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

from bridge.ledger.port import JobRecord
from bridge.settings import load
from bridge.store import Store, open_store
from tests.support import forked
from tests.support.forked import Command

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class BridgeSetup:
    """Where a bridge works; every process and command of it takes the same."""

    # Database, results and log lie in it; jobs may name its files.
    folder: Path
    # host:port of the inference server; empty for none.
    inference: str
    # Variables that only some tests set.
    variables: Mapping[str, str] = field(default_factory=dict)
    # How `bridge run` is started, where it is not in the usual way.
    program: tuple[str, ...] = (sys.executable, "-m", "bridge")

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
        return {
            **clean,
            **({"BRIDGE_INFERENCE": self.inference} if self.inference else {}),
            "BRIDGE_DATABASE": str(self.folder / "bridge.db"),
            "BRIDGE_RESULTS": str(self.results),
            "BRIDGE_READ_ROOTS": str(self.folder),
            "BRIDGE_HTTP": "off",
            "BRIDGE_CONCURRENCY": "3",
            "BRIDGE_POLL_SECONDS": "0.2",
            "BRIDGE_BACKOFF_SECONDS": "0.1",
            "BRIDGE_BACKOFF_LIMIT_SECONDS": "0.5",
            **self.variables,
        }

    def start(self, *arguments: str, given: str = "") -> Command:
        """Start a command such as `bridge jobs`. `given`: what it reads from standard input."""
        return Command(arguments, folder=self.folder, environment=self.environment(), given=given)

    def call(self, *arguments: str) -> str:
        """What a command prints; it must end well."""
        return finished(self.start(*arguments))

    def read(self, work: Callable[[Store], Awaitable[Result]]) -> Result:
        """Work on the bridge's store from this process; a command for each look would cost a second of imports."""

        async def opened() -> Result:
            async with open_store(load(database=str(self.folder / "bridge.db"))) as store:
                return await work(store)

        return asyncio.run(opened())

    def jobs(self) -> Mapping[str, JobRecord]:
        """The jobs of the ledger, by key."""
        return self.read(_jobs)

    def wait_for_jobs(self, *states: str, count: int, seconds: float) -> Mapping[str, JobRecord]:
        """The jobs, once `count` of them are in one of the states."""

        async def waited(store: Store) -> Mapping[str, JobRecord]:
            until = time.monotonic() + seconds
            while True:
                jobs = await _jobs(store)
                if sum(job.state in states for job in jobs.values()) >= count:
                    return jobs
                if time.monotonic() > until:
                    raise AssertionError(f"{count} jobs were not {' or '.join(states)} within {seconds:g} s: {jobs}")
                await asyncio.sleep(0.1)

        return self.read(waited)

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """`bridge run`, ended afterwards if it still runs. It leads a process group of its own."""
        with (self.folder / "bridge.log").open("ab") as log:
            command = [*self.program, "run"]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=self.environment(), start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(30)

    @contextmanager
    def running_forked(self) -> Iterator[BaseProcess]:
        """`bridge run` as a process that is forked once the imports are done, for tests that start many; ended afterwards."""
        log = self.folder / "bridge.log"
        log.touch()
        process = forked.start_bridge("run", folder=self.folder, environment=self.environment(), log=log)
        try:
            yield process
        finally:
            # One that has ended is no child of ours, and its number may be another's by now, if only a thread's.
            if process.is_alive():
                process.kill()
            process.join(30)


async def _jobs(store: Store) -> Mapping[str, JobRecord]:
    return {job.key: job for job in await store.jobs.list(limit=1000)}


def finished(process: Command, *, seconds: float = 60.0) -> str:
    """What a command printed, once it has ended well."""
    told, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors
    return told


def has_left_nothing(process: subprocess.Popen[bytes]) -> bool:
    """Whether neither a process nor a child of it runs."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False
