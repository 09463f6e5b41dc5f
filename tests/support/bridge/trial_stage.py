"""A stage for trials: one queue with its work on it, and real bridges that come and go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import grpc
from lamina.v1 import slides_pb2
from sqlalchemy import text

from bridge.ledger.port import DeadLetter, JobRecord, State
from bridge.steps import Step
from bridge.store import Store
from tests.support.bridge.freezing import is_frozen
from tests.support.bridge.scripted_server import scripted_server
from tests.support.bridge.sources.port import Find, Lines, Rig, SourceKind
from tests.support.bridge.trial_bridge import Trial, log_lines, message, open_trial_store, start, trial_settings
from tests.support.servers.fault_proxy import FaultProxy

# Leases of trial bridges.
LEASE_SECONDS = 0.9
# What is waited for ends the wait. Only a failure takes so long: such as a lease of another length than was set.
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.1
_ENDED = {State.SUCCEEDED, State.FAILED}
POISON = b"\xff not JSON"

# The work of every trial: each job with what it asks for. Between them a bridge goes through every step that there is.
REQUESTS: Mapping[str, dict[str, Any]] = {
    "slide": {"slide": "a.svs"},
    "long": {"parts": 8, "part_seconds": 0.06},
    "flaky": {"transient_failures": 1},
    "broken": {"broken": True},
    "plain": {},
}
# The first try to send the result of these fails.
_STUMBLES = {"flaky"}


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """What is left once the bridges have worked until nothing was left to do, and were told to stop."""

    # Exit statuses, in the order of their starts.
    statuses: Sequence[int | None]
    jobs: Mapping[str, JobRecord]
    # Message ids and bodies, as they came.
    arrived: Sequence[tuple[str, Mapping[str, Any]]]
    letters: Sequence[DeadLetter]
    put_aside: Sequence[bytes] | None
    # On the queue, and in the outbox.
    waiting: int
    unsent: int


@dataclass(kw_only=True)
class Stage:
    """One trial while it is played."""

    step: Step
    rig: Rig
    store: Store
    lines: Lines
    folder: Path
    # host:port of the inference server, as bridges reach it.
    inference: str
    _processes: list[BaseProcess] = field(default_factory=list)

    @property
    def proxy(self) -> FaultProxy:
        """In the line that the trial makes misbehave."""
        return self.lines.proxy

    @property
    def messages(self) -> list[bytes]:
        """The messages that ask for all jobs, one of them twice, and one that nobody can read."""
        return [*(message(key, **request) for key, request in REQUESTS.items()), message("plain"), POISON]

    def start(self, signal_at_step: signal.Signals | None = None) -> BaseProcess:
        """Start a bridge, which may send itself a signal when it reaches the trial's step."""
        found = {"lease_seconds": LEASE_SECONDS, "concurrency": 4, "inference": self.inference, **self.rig.settings()}
        trial = Trial(
            settings=trial_settings(self.folder, **found),
            log=self._log_of(len(self._processes)),
            signal_at=self.step if signal_at_step else None,
            signal=signal_at_step or signal.SIGKILL,
            stumbles=_STUMBLES,
            infers=True,
            certificates=self.rig.certificates,
        )
        self._processes.append(start(trial))
        return self._processes[-1]

    async def ended(self, process: BaseProcess) -> None:
        """Wait until a process is gone."""
        await self.until(lambda: not process.is_alive(), "a bridge did not end")

    async def frozen(self, process: BaseProcess) -> None:
        """Wait until a process has stopped itself at the trial's step."""
        await self.until(lambda: is_frozen(process.pid or 0), f"no bridge reached the step {self.step}")

    def thaw(self, process: BaseProcess) -> None:
        """Let a frozen process go on."""
        os.kill(process.pid or 0, signal.SIGCONT)

    async def until(self, true: Callable[[], bool], otherwise: str) -> None:
        """Wait until something is so. Raises `AssertionError`, with what the bridges told last."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not true():
            assert time.monotonic() < deadline, f"{otherwise}\n{self._told()}"
            await asyncio.sleep(_LOOK_SECONDS / 3)

    async def until_done(self, *, at_most: float | None = None) -> None:
        """Wait until every job has ended, every result is sent, and the queue is empty. `at_most`: seconds, after which it is left so."""
        deadline = time.monotonic() + (at_most or PATIENCE_SECONDS)
        while standing := await self._standing():
            if at_most is not None and time.monotonic() > deadline:
                return
            assert time.monotonic() < deadline, f"not everything was done: {standing}\n{self._told()}"
            await asyncio.sleep(_LOOK_SECONDS)

    async def longest_lease(self) -> float:
        """Seconds until the last of the bridges' leases of jobs has run out, by the database's clock; 0 when there is none."""
        schema = "lamina." if self.store.database.dialect == "postgres" else ""
        leases = f"SELECT lease_until - (SELECT now FROM {schema}clock) AS seconds FROM {schema}jobs WHERE state = 'running'"
        return max((row["seconds"] for row in (await self.store.database.look(text(leases))).rows), default=0.0)

    async def stop(self) -> None:
        """Tell those that run to stop, and wait until they have."""
        for number, process in enumerate(self._processes):
            if process.is_alive():
                # One that has not begun would be killed by the signal.
                await self.until(lambda number=number: self._has_started(number), "a bridge did not start")
                process.terminate()
        for process in self._processes:
            await self.ended(process)

    def close(self) -> None:
        """Let nothing run on."""
        for process in self._processes:
            if process.is_alive():
                process.kill()
            process.join()

    async def aftermath(self) -> Aftermath:
        """What is left."""
        return Aftermath(
            statuses=[process.exitcode for process in self._processes],
            jobs={record.key: record for record in await self.store.jobs.list()},
            arrived=[(message_id, json.loads(body)) for message_id, body in await self.rig.arrived()],
            letters=list(await self.store.dead_letters.list()),
            put_aside=await self.rig.put_aside() if self.rig.put_aside else None,
            waiting=await self.rig.left(),
            unsent=(await self.store.outbox.backlog()).depth,
        )

    def _log_of(self, number: int) -> Path:
        return self.folder / f"bridge-{number}.log"

    def _has_started(self, number: int) -> bool:
        return any(line["event"] == "started" for line in log_lines(self._log_of(number)))

    async def _standing(self) -> str:
        """What is still to be done; empty when nothing is."""
        jobs = {record.key: record.state for record in await self.store.jobs.list()}
        left = {key: jobs.get(key, "unknown") for key in REQUESTS if jobs.get(key) not in _ENDED}
        waiting, unsent = await self.rig.left(), (await self.store.outbox.backlog()).depth
        return f"jobs {left}, {waiting} on the queue, {unsent} to be sent" if left or waiting or unsent else ""

    def _told(self) -> str:
        logs = {path.name: path.read_text().splitlines()[-12:] for path in sorted(self.folder.glob("bridge-*.log"))}
        return "\n\n".join("\n".join([f"{name}:", *lines]) for name, lines in logs.items())


@asynccontextmanager
async def open_stage(kind: SourceKind, find: Find, folder: Path, *, step: Step, faulty: str = "") -> AsyncIterator[Stage]:
    """A stage with its work on the queue. `faulty`: the line that can be made to misbehave."""
    async with AsyncExitStack() as stack:
        lines = Lines(stack, faulty=faulty)
        rig = await stack.enter_async_context(kind.rig(find, folder, lines))
        server = await stack.enter_async_context(scripted_server())
        server.script = [partial(_analysis, _renewed_in(folder) if step is Step.RENEWED else lambda: True)]
        port = await lines.to("inference", int(server.address.rpartition(":")[2]))
        store = await stack.enter_async_context(open_trial_store(folder, database=rig.database))
        stage = Stage(step=step, rig=rig, store=store, lines=lines, folder=folder, inference=f"127.0.0.1:{port}")
        stack.callback(stage.close)
        for body in stage.messages:
            await rig.send(body)
        yield stage


def _renewed_in(folder: Path) -> Callable[[], bool]:
    """Whether a bridge has renewed the lease of a job: on a slow machine that takes longer than the work would."""
    return lambda: any(line.get("step") == Step.RENEWED for log in folder.glob("bridge-*.log") for line in log_lines(log))


async def _analysis(may_end: Callable[[], bool], request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
    """Tiles, for half a second and until it may end, and a result."""
    done = 0
    while done < 8 or not may_end():
        await asyncio.sleep(0.06)
        done = min(done + 1, 8)
        yield slides_pb2.AnalyzeSlideResponse(progress=slides_pb2.AnalysisProgress(stage="tiles", tiles_done=done, tiles_total=8))
    yield slides_pb2.AnalyzeSlideResponse(result=slides_pb2.SlideAnalysis(analysis="trial", report_json="{}"))
