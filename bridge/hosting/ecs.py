"""Protects our task of ECS from scale-in and deployments while a job runs.

The agent's endpoint: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from bridge.errors import TransientError
from bridge.hosting.metadata import LocalService
from bridge.steps import Step, StepTaken

_log = structlog.get_logger()
_PATH = "/task-protection/v1/state"
_HEADERS = {"Content-Type": "application/json"}
# How often it is looked whether a job runs still, and the longest pause after a refusal; in seconds.
_LOOK_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_OK = 200


class TaskProtection:
    """An observer that asks for protection as soon as something is received, renews it, and gives it up when nothing runs.

    Nothing waits for it: without protection a job that is cut off is done elsewhere, as after any interruption.
    """

    def __init__(
        self,
        agent: LocalService,
        *,
        busy: Callable[[], bool],
        minutes: int = 60,
        linger_seconds: float = 10.0,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        """`busy`: whether a job runs. `minutes`: for how long protection is asked; renewed at a third.

        `linger_seconds`: how long protection outlives the last job, so that short jobs do not wear the agent out.
        """
        self._agent = agent
        self._busy = busy
        self._minutes = minutes
        self._linger_seconds = linger_seconds
        self._look_seconds = look_seconds
        self._received = asyncio.Event()
        self._failures = 0
        # Whether the agent has confirmed it, and when it is to be renewed or tried again.
        self.protected = False
        self._due = 0.0

    def on_step(self, taken: StepTaken) -> None:
        """Look at once when something came."""
        if taken.step is Step.RECEIVED:
            self._received.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the task protected while jobs run, until `stop`; then give protection up."""
        try:
            while not stop.is_set():
                self._received.clear()
                if self._busy():
                    await self._keep()
                elif self.protected:
                    await self._leave(stop)
                await self._rest(stop)
        finally:
            if self.protected:
                await self._ask(protect=False)

    async def _keep(self) -> None:
        if _now() < self._due:
            return
        done = await self._ask(protect=True)
        # The first refusals may be the agent's start; one that says no each time is not asked often.
        pause = self._minutes * 60 / 3 if done else min(_LONGEST_PAUSE_SECONDS, 2.0**self._failures)
        self._due = _now() + pause

    async def _leave(self, stop: asyncio.Event) -> None:
        """Give protection up, unless another job comes in a moment."""
        await self._first_of(stop, self._linger_seconds)
        if not self._busy():
            if not await self._ask(protect=False):
                await self._first_of(stop, min(_LONGEST_PAUSE_SECONDS, 2.0**self._failures))
            self._due = 0.0

    async def _ask(self, *, protect: bool) -> bool:
        """Whether the agent has done so."""
        state: dict[str, Any] = {"ProtectionEnabled": protect}
        if protect:
            state["ExpiresInMinutes"] = self._minutes
        try:
            answer = await self._agent.call("PUT", _PATH, body=json.dumps(state).encode(), headers=_HEADERS)
            problem = _problem(answer.status, answer.body)
        except TransientError as error:
            problem = str(error)
        if problem:
            self._failures = min(self._failures + 1, 30)
            _log.warning("task_protection_failed", protect=protect, reason=problem)
            return False
        self._failures = 0
        if protect != self.protected:
            _log.info("task_protected" if protect else "task_released")
        self.protected = protect
        return True

    async def _rest(self, stop: asyncio.Event) -> None:
        """Until something comes; while protected, or a job runs, for a moment only."""
        seconds = self._look_seconds if self.protected or self._busy() else None
        await self._first_of(stop, seconds)

    async def _first_of(self, stop: asyncio.Event, seconds: float | None) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (stop, self._received)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _problem(status: int, body: bytes) -> str:
    """What went wrong; empty when nothing did. The agent tells some failures with the status 200."""
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if status == _OK and isinstance(told, Mapping) and "protection" in told:
        return ""
    for name in ("failure", "error"):
        if isinstance(told, Mapping) and told.get(name):
            return f"{status}: {json.dumps(told[name])[:500]}; the task's role needs ecs:UpdateTaskProtection"
    return f"{status}: {body[:200].decode(errors='replace')}"


def _now() -> float:
    return asyncio.get_running_loop().time()
