"""One slide as several jobs: a job for each share of its tiles, and the slide's own, which merges what they saved.

Shares leave word at a place that all know by the slide's key. The slide's job is claimed like any other: so it is merged once, whoever
waits for it, and its fence names the files that count. What a share did not bring is computed by the one that merges. While it waits it
holds none of a bridge's places: shares that stand behind it in the queue need them. A share that was given up has left no word: of its end
the ledger tells, and of what it saved its folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from bridge.errors import NotYetError, TransientError
from bridge.job import Units
from bridge.ledger.port import Jobs, State
from bridge.results import ResultFolder, ResultStore
from bridge.systems.port import Context

_log = structlog.get_logger()
# What is left of the place when the slide is done, for shares that come late.
_DONE = "done"
# How far the slide is when all shares are there.
_SHARES_END = 0.9


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

    async def leave(self, index: int, brought: Brought) -> bool:
        """Say what a share saved. False when the slide is done: then no word is left. Raises as `ResultFolder` does."""
        await self._folder.write(f"{index}.json", json.dumps({"job_key": brought.job_key, "runs": brought.runs}).encode())
        # Looked for afterwards: whoever merges meanwhile says that the slide is done, and looks for words afterwards too.
        if not await self.done():
            return True
        await self.clear()
        return False

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
        """Say that the slide is done: who leaves word from now on takes it back. Raises as `ResultFolder` does."""
        await self._folder.write(_DONE, b"")

    async def clear(self) -> None:
        """Remove all words but that the slide is done. Raises as `ResultFolder` does."""
        await self._folder.clear("", but=_DONE)


async def gathered(
    place: SharePlace, keys: Sequence[str], policy: SharingPolicy, context: Context, jobs: Jobs | None
) -> Mapping[int, Brought]:
    """What those shares say that have left word, by their numbers: all, or those that did in time. Raises as `ResultFolder` does.

    Raises `NotYetError` while it is worth waiting. `keys`: of the shares' jobs, in their order; `jobs`: knows which have ended. How long it
    has waited is kept in the job's checkpoint, so that its patience ends whoever claims it.
    """
    found, saved, count = await place.found(), context.claim.checkpoint, len(keys)
    # A merge that has begun goes on with what there is.
    if len(found) >= count or "runs" in saved:
        return found
    if jobs is not None and await _all_ended(jobs, [key for number, key in enumerate(keys) if number not in found]):
        # Once more: they may have left word and ended since they were looked for.
        found = await place.found()
        _log.warning("shares_given_up", found=len(found), count=count)
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


async def _all_ended(jobs: Jobs, keys: Sequence[str]) -> bool:
    """Whether nobody works on those jobs any more, nor will: they were given up, or found the slide done before it was asked for anew."""
    try:
        for key in keys:
            known = await jobs.find(key)
            if known is None or known.key != key or known.state not in {State.SUCCEEDED, State.FAILED}:
                return False
    except TransientError as error:  # it is asked again, and costs the slide no attempt
        _log.warning("shares_unknown", reason=str(error))
        return False
    return True
