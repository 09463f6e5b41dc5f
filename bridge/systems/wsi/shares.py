"""One slide as several jobs: a job for each share of its tiles, and the slide's own, which merges what they saved.

Shares leave word at a place that all know by the slide's key. The slide's job is claimed like any other: so it is merged once, whoever
waits for it, and its fence names the files that count. What a share did not bring is computed by the one that merges. While it waits it
holds none of a bridge's places: shares that stand behind it in the queue need them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from bridge.errors import BridgeError, NotYetError
from bridge.job import Units
from bridge.results import ResultFolder, ResultStore
from bridge.systems.port import Context

_log = structlog.get_logger()
# What is left of the place when the slide is done, for shares that come late.
_DONE = "done"
# How far the slide is when all shares are there.
_SHARES_END = 0.9


# Whether the job of a share, by its key, has ended without a result.
HasFailed = Callable[[str], Awaitable[bool]]


@dataclass(frozen=True, kw_only=True)
class SharingPolicy:
    """How the merging job waits. Times in seconds."""

    # Longest wait for the next share; what is missing then is computed.
    patience_seconds: float = 3600.0
    # It comes back after a tenth of the time that it has waited, within these bounds: queues count how often a message was received.
    least_pause_seconds: float = 2.0
    most_pause_seconds: float = 120.0


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
        """Say what a share saved; nothing where it failed. Raises as `ResultFolder` does."""
        await self._folder.write(f"{index}.json", json.dumps({"job_key": brought.job_key, "runs": brought.runs}).encode())

    async def done(self) -> bool:
        """Whether the slide is done, and a share that comes late has nothing to do. Raises as `ResultFolder` does."""
        return await self._folder.read(_DONE) is not None

    async def found(self) -> Mapping[int, Brought]:
        """What the shares saved that have left word, by their numbers and in their order. Raises as `ResultFolder` does."""
        found: dict[int, Brought] = {}
        for index in range(self._count):
            if (content := await self._folder.read(f"{index}.json")) is not None:
                said = json.loads(content)
                runs = tuple((int(fence), int(parts)) for fence, parts in said["runs"])
                found[index] = Brought(job_key=said["job_key"], runs=runs)
        return found

    async def close(self) -> None:
        """Leave word that the slide is done. What cannot be removed is in nobody's way."""
        try:
            await self._folder.clear("")
            await self._folder.write(_DONE, b"")
        except BridgeError as error:
            _log.warning("shares_left_behind", reason=str(error))


async def never_failed(job_key: str) -> bool:
    """Of whom no ledger tells."""
    return False


async def gathered(
    place: SharePlace, keys: Sequence[str], policy: SharingPolicy, context: Context, has_failed: HasFailed
) -> Sequence[Brought]:
    """What all shares saved, or those that did in time. Raises `NotYetError` while it is worth waiting; as `ResultFolder` does.

    `keys`: of the shares' jobs, in their order. How long it has waited is kept in the job's checkpoint, so that its patience ends whoever
    claims it.
    """
    by_number, saved, count = await place.found(), context.claim.checkpoint, len(keys)
    found = list(by_number.values())
    # A merge that has begun goes on with what there is.
    if len(found) >= count or not saved.keys().isdisjoint({"runs", "finished"}):
        return found
    # One that was tried too often, or took too many servers down, has left no word.
    missing = [key for number, key in enumerate(keys) if number not in by_number]
    if all([await has_failed(key) for key in missing]):
        _log.warning("shares_failed", found=len(found), count=count)
        return found
    now = time.time()  # other bridges read it: no clock of one machine alone
    waited = saved.get("waiting") or {"since": now, "found": -1, "last": now}
    if len(found) > waited["found"]:
        waited = {**waited, "found": len(found), "last": now}
        context.report(_SHARES_END * len(found) / count, "shares", Units(done=len(found), total=count))
        await context.checkpoint({**saved, "waiting": waited})
    left = waited["last"] + policy.patience_seconds - now
    if left <= 0:
        _log.warning("shares_missing", found=len(found), count=count)
        return found
    pause = min(max((now - waited["since"]) / 10, policy.least_pause_seconds), policy.most_pause_seconds, left)
    raise NotYetError(f"{len(found)} of the slide's {count} shares are there; it waits for the others", retry_after=pause)
