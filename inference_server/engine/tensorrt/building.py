"""Has engines built by other processes, a few at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from inference_server.engine.tensorrt.plans import PlanCache, Recipe

BUILDING, BUILT, FAILED = "building", "built", "failed"
_COMMAND = (sys.executable, "-m", "inference_server.engine.tensorrt.build_process")
# Lines of what the process writes to standard error that are told when it ends without a reason.
_LAST_LINES = 3
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class BuildState:
    """How far the build of an engine is."""

    # building, built or failed.
    state: str
    # Why it failed; empty otherwise.
    reason: str = ""
    # What is done now, and how many steps of it.
    phase: str = "waits for its turn"
    done: int = 0
    total: int = 0


class EngineBuilds:
    """The builds that were asked for; each is tried once.

    `jobs`: builds at a time; more than one disturb each other's timings. `command`: what builds, the cache's folder added.
    """

    def __init__(self, cache: Path, *, jobs: int = 1, command: tuple[str, ...] = _COMMAND) -> None:
        self.plans = PlanCache(cache)
        self._command = (*command, str(cache))
        self._threads = ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="engine-build")
        self._lock = threading.Lock()
        self._states: dict[str, BuildState] = {}
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def request(self, recipe: Recipe, changed: Callable[[], None]) -> None:
        """Build, unless it was asked for already; `changed` is called from another thread when the build has ended."""
        with self._lock:
            state = self._states.get(recipe.key)
            if self._closed or (state is not None and state.state != BUILDING):
                return
            self._waiting.setdefault(recipe.key, []).append(changed)
            if state is None:
                self._states[recipe.key] = BuildState(state=BUILDING)
                self._threads.submit(self._build, recipe)

    def state(self, recipe: Recipe) -> BuildState | None:
        """How far a build is; None for one that nobody asked for and that is not there."""
        state = self._states.get(recipe.key)
        if state is None or state.state == FAILED:
            return BuildState(state=BUILT) if self.plans.find(recipe) else state
        return state

    def close(self) -> None:
        """End what runs; the cache keeps nothing half built."""
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _build(self, recipe: Recipe) -> None:
        _log.info("engine_build_begins", model=recipe.path.parent.parent.name, engine=recipe.label)
        try:
            state = self._run(recipe)
        except Exception as error:  # a defect here must be told as any failure is
            _log.exception("engine_build_defect")
            state = BuildState(state=FAILED, reason=f"{type(error).__name__}: {error}")
        _log.log(20 if state.state == BUILT else 40, "engine_build_ended", engine=recipe.label, state=state.state, reason=state.reason)
        with self._lock:
            self._states[recipe.key] = state
            told = self._waiting.pop(recipe.key, [])
        for changed in told:
            changed()

    def _run(self, recipe: Recipe) -> BuildState:
        pipe = subprocess.PIPE
        with self._lock:
            if self._closed:
                return BuildState(state=FAILED, reason="the server ends")
            process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)  # noqa: S603
            self._running.add(process)
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        errors: deque[str] = deque(maxlen=_LAST_LINES)
        drain = threading.Thread(target=lambda lines: errors.extend(map(str.strip, lines)), args=(process.stderr,), daemon=True)
        drain.start()
        try:
            process.stdin.write(recipe.to_json())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended at once, and its status tells
        reason = ""
        for told in _objects(process.stdout):
            reason = str(told.get("failed", reason))
            if "phase" in told:
                step = BuildState(state=BUILDING, phase=str(told["phase"]), done=int(told["done"]), total=int(told["total"]))
                self._states[recipe.key] = step
        status = process.wait()
        drain.join()
        with self._lock:
            self._running.discard(process)
        if status == 0:
            return BuildState(state=BUILT)
        ended = f"the process that built it ended with status {status}: {' '.join(errors) or 'it said nothing'}"
        return BuildState(state=FAILED, reason=reason or ended)


def _objects(lines: Any) -> Iterator[dict[str, Any]]:
    """The JSON objects among lines; libraries may write others."""
    for line in lines:
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:
                continue
