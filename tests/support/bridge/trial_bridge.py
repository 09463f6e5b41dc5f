"""A real bridge process for tests: the whole program, with a small system of its own and a way to die at any step."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bridge import logs
from bridge.app import START_PATIENCE_SECONDS, Bridge, local_transport, run_until_signalled
from bridge.envelopes import native
from bridge.errors import OverloadError, PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.slides import SlideProgress
from bridge.job import Delivery, Event, Job, Message, Outcome
from bridge.served import Systems
from bridge.settings import Settings, load
from bridge.sinks.port import Sink
from bridge.steps import Step, StepTaken
from bridge.store import open_store
from bridge.systems.port import Context
from bridge.transports.opening import open_transport
from tests.support import forked
from tests.support.patience import PATIENCE_SECONDS

SYSTEM = "trial"


def message(key: str, **request: Any) -> bytes:
    """A message that asks for a trial."""
    return native.write(Job(key=key, system=SYSTEM, request=request))


class TrialHandler:
    """Does what a request tells it to: sleep, save its place, fail in a given way."""

    system = SYSTEM

    def __init__(self, client: InferenceClient | None = None) -> None:
        """`client`: for requests that have a slide analysed."""
        self._client = client

    def parse(self, delivery: Delivery) -> Job:
        envelope = native.read(delivery.body)
        return Job(key=envelope.key, system=SYSTEM, request=envelope.request)

    async def handle(self, job: Job, context: Context) -> Outcome:
        asked = job.request
        done = int(context.claim.checkpoint.get("parts", 0))
        computed = 0
        for part in range(done, asked.get("parts", 0)):
            await asyncio.sleep(asked.get("part_seconds", 0.05))
            computed += 1
            await context.checkpoint({"parts": part + 1})
            context.report((part + 1) / asked["parts"], f"part {part + 1}")
        await asyncio.sleep(asked.get("seconds", 0))
        while "while_exists" in asked and Path(asked["while_exists"]).exists():
            await asyncio.sleep(0.02)
        if "slide" in asked:
            await self._analyse(asked["slide"], job, context)
        if context.claim.attempts < asked.get("transient_failures", 0):
            raise TransientError("not yet")
        if "down_while" in asked and Path(asked["down_while"]).exists():
            raise OverloadError("the server is down", retry_after=0.05)
        if asked.get("broken"):
            raise PermanentError("this can never work")
        if asked.get("unforeseen"):
            raise ZeroDivisionError("a mistake in the handler")
        if asked.get("unwritable"):
            return Outcome(succeeded=True, result={"value": object()})
        result = {"fence": context.claim.fence, "computed": computed, "resumed_at": done}
        return Outcome(succeeded=True, result=result, events=(_event("completed", job, result),), fallback=asked.get("fallback", ""))

    async def _analyse(self, slide: str, job: Job, context: Context) -> None:
        assert self._client is not None, "the trial has no inference server"
        async with aclosing(self._client.analyze_slide(slide, request_id=job.key)) as events:
            async for event in events:
                if isinstance(event, SlideProgress):
                    context.report(event.tiles_done / event.tiles_total, event.stage)

    def failure(self, job: Job, reason: str) -> Outcome:
        result = {"error": "the trial failed", "reason": reason}
        return Outcome(succeeded=False, result=result, events=(_event("failed", job, result),))


def _event(kind: str, job: Job, result: Mapping[str, Any]) -> Event:
    return Event(type=kind, destination=job.reply_queue, body=json.dumps({"job": job.key, **result}).encode())


class StumblingSink:
    """A sink, but the first try to send each message of some jobs fails."""

    def __init__(self, sink: Sink, jobs: set[str]) -> None:
        self._sink = sink
        self._jobs = jobs
        self._seen: set[str] = set()

    async def send(self, message: Message) -> None:
        if message.job_key in self._jobs and message.message_id not in self._seen:
            self._seen.add(message.message_id)
            raise TransientError("the sink stumbled")
        await self._sink.send(message)


class SignalAt:
    """Sends its own process a signal, the first time that a step is reached: SIGKILL, as the kernel would; SIGSTOP; SIGTERM."""

    def __init__(self, step: Step, number: signal.Signals) -> None:
        self._step = step
        self._number = number
        self._sent = False

    def on_step(self, taken: StepTaken) -> None:
        if taken.step is self._step and not self._sent:
            self._sent = True
            os.kill(os.getpid(), self._number)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How to start a trial bridge."""

    # The settings, as their fields.
    settings: Mapping[str, Any]
    log: Path
    until_idle: bool = False
    # The step at which the process sends itself a signal, and which.
    signal_at: Step | None = None
    signal: signal.Signals = signal.SIGKILL
    # Whether there is an inference server, where the settings say.
    infers: bool = False
    # The certificates of whoever signs pushes, by the id of their key, instead of Google's.
    certificates: Mapping[str, str] = field(default_factory=dict)
    # Jobs whose messages cannot be sent at the first try.
    stumbles: set[str] = field(default_factory=set)


def trial_settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings with short times, in a folder of the test's own. Its file `database`, where there is one, names its database."""
    named = folder / "database"
    quick = {
        "database": named.read_text() if named.exists() else str(folder / "bridge.db"),
        "results": str(folder / "results"),
        "http": "off",
        "lease_seconds": 0.9,
        "backoff_seconds": 0.05,
        "backoff_limit_seconds": 0.2,
        "poll_seconds": 0.2,
        "drain_seconds": 5.0,
        "metrics_seconds": 0.0,
        "concurrency": 2,
    }
    return {**quick, **changes}


def open_trial_store(folder: Path, **changes: Any) -> Any:
    """The store of such settings."""
    return open_store(load(**trial_settings(folder, **changes)), patience_seconds=PATIENCE_SECONDS)


def start(trial: Trial) -> BaseProcess:
    """Start a real process."""
    return forked.start(_main, trial)


def log_lines(log: Path) -> list[dict[str, Any]]:
    """What a process has logged so far; a last line that is cut off by a kill is left out."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]


def _main(trial: Trial) -> None:
    forked.send_output_to(trial.log, trial.log)
    settings = load(**trial.settings)
    logs.configure("debug")
    asyncio.run(_serve(trial, settings))


async def _serve(trial: Trial, settings: Settings) -> None:
    if trial.certificates:
        from bridge.google import tokens

        # Google's own are out of reach, and would not do.
        tokens.fetch_certificates = lambda: trial.certificates
    async with open_store(settings, patience_seconds=START_PATIENCE_SECONDS) as store, _client(trial, settings) as client:
        observers = [SignalAt(trial.signal_at, trial.signal)] if trial.signal_at else []
        async with open_transport(settings, local=local_transport(settings, store)) as transport:
            sink = StumblingSink(transport.sink, trial.stumbles)
            bridge = Bridge(settings, store, trial_systems(client), observers=observers, sink=sink, transport=transport)
            await run_until_signalled(bridge, until_idle=trial.until_idle)


@asynccontextmanager
async def _client(trial: Trial, settings: Settings) -> AsyncIterator[InferenceClient | None]:
    if not trial.infers:
        yield None
        return
    async with InferenceClient(settings.inference) as client:
        yield client


def trial_systems(client: InferenceClient | None = None) -> Systems:
    """The trial system alone."""
    return Systems(handlers=[TrialHandler(client)])
