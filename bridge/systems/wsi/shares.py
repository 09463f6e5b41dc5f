"""One slide as several jobs: a job for each share of its tiles, and the slide's own, which merges what they saved.

Shares leave word at a place that all know by the slide's key. The slide's job is claimed like any other: so it is merged once, whoever
waits for it, and its fence names the files that count. What a share did not bring is computed by the one that merges.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from bridge.errors import BridgeError
from bridge.results import ResultFolder, ResultStore

_log = structlog.get_logger()
# What is left of the place when the slide is done, for shares that come late.
_DONE = "done"


@dataclass(frozen=True, kw_only=True)
class SharingPolicy:
    """How the merging job waits. Times in seconds."""

    # Longest wait for the next share; what is missing then is computed.
    patience_seconds: float = 3600.0
    # How often it is looked for word.
    poll_seconds: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Brought:
    """The parts that one share saved."""

    # The share's job.
    job_key: str
    # Fences of its tries, with how many parts of each count.
    runs: tuple[tuple[int, int], ...]


class SharePlace:
    """Where the shares of one slide meet."""

    def __init__(self, results: ResultStore, merged_by: str, count: int) -> None:
        """`merged_by`: the key of the slide's job; `count`: how many shares there are."""
        self._folder: ResultFolder = results.folder("shares", merged_by, count)
        self._count = count

    async def leave(self, index: int, brought: Brought) -> None:
        """Say what a share saved; nothing where it failed. Raises `TransientError`."""
        await self._folder.write(f"{index}.json", json.dumps({"job_key": brought.job_key, "runs": brought.runs}).encode())

    async def done(self) -> bool:
        """Whether the slide is done, and a share that comes late has nothing to do. Raises `TransientError`."""
        return await self._folder.read(_DONE) is not None

    async def gather(self, policy: SharingPolicy, report: Callable[[int], None]) -> Sequence[Brought]:
        """What all shares saved, or those that did in time, in their order. `report`: is told how many. Raises `TransientError`."""
        found: dict[int, Brought] = {}
        last = time.monotonic()
        while True:
            for index in [each for each in range(self._count) if each not in found]:
                content = await self._folder.read(f"{index}.json")
                if content is not None:
                    said = json.loads(content)
                    runs = tuple((int(fence), int(parts)) for fence, parts in said["runs"])
                    found[index] = Brought(job_key=said["job_key"], runs=runs)
                    last = time.monotonic()
            report(len(found))
            if len(found) == self._count or time.monotonic() - last > policy.patience_seconds:
                break
            await asyncio.sleep(policy.poll_seconds)
        if len(found) < self._count:
            _log.warning("shares_missing", found=len(found), count=self._count)
        return [found[index] for index in sorted(found)]

    async def close(self) -> None:
        """Leave word that the slide is done. What cannot be removed is in nobody's way."""
        try:
            await self._folder.clear("")
            await self._folder.write(_DONE, b"")
        except BridgeError as error:
            _log.warning("shares_left_behind", reason=str(error))
