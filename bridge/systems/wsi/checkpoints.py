"""What the tries of one slide have saved, as the ledger keeps it: which parts under which fences; in the end, what was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from bridge.errors import BridgeError
from bridge.inference.slides import SlideCheckpoint, SlideResume
from bridge.results import ResultFolder
from bridge.systems.port import Context
from bridge.systems.received_artifacts import ReceivedArtifacts

_log = structlog.get_logger()
# Of the folder of a try.
_FOLDER = "checkpoint"
# As `_name` names it, in the folder of all tries of a job.
_PART = re.compile(rf"(\d+)/{_FOLDER}/(\d+)\.part")
# Most bytes of parts that are sent back to a server that cannot read them itself; below what a message holds.
_MOST_BYTES = 192 * 1024 * 1024

# The folder of a try, by its fence.
FolderOf = Callable[[int], ResultFolder]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an analysis found, and the fence of the try that wrote its files."""

    fence: int
    result: Mapping[str, Any]


class SlideCheckpoints:
    """Saves under the claim of a try what a later one needs, and tells this one what earlier ones saved."""

    def __init__(
        self, *, context: Context, folder_of: FolderOf, shared_storage: bool, others: Sequence[tuple[ResultFolder, int]] = ()
    ) -> None:
        """`shared_storage`: the server writes and reads parts itself; else they come as chunks, are written here, and sent back.

        `others`: folders of other jobs' tries whose parts are gone on with too, and how many of each count.
        """
        self._context = context
        self._folder_of = folder_of
        self._shared_storage = shared_storage
        saved = context.claim.checkpoint
        # Fences, with how many parts of each count.
        self._earlier: list[tuple[int, int]] = [(int(fence), int(parts)) for fence, parts in saved.get("runs", ())]
        # Not once an analysis has started over without them.
        self._others = list(others) if saved.get("others", True) else []
        self._runs = self._earlier

    @property
    def runs(self) -> Sequence[tuple[int, int]]:
        """Fences of the tries whose parts count, with how many of each."""
        return self._runs

    @property
    def finished(self) -> Found | None:
        """What an earlier try found, when only its end was not committed."""
        found = self._context.claim.checkpoint.get("finished")
        return Found(fence=int(found["fence"]), result=found["result"]) if found else None

    async def resume(self) -> SlideResume | None:
        """What the server goes on from; None when there is nothing. Raises as `ResultFolder` does.

        Of parts that are sent back those that are missing go empty, and those that no message has room for, so that the server knows of
        them: it computes their tiles again, reads again what they alone told of, and says how many there were.
        """
        tries = [*self._others, *((self._folder_of(fence), parts) for fence, parts in self._earlier)]
        places = [(folder, _name(part)) for folder, parts in tries for part in range(1, parts + 1)]
        if not places:
            return None
        if self._shared_storage:
            return SlideResume(uris=[f"{folder.location}/{name}" for folder, name in places])
        contents: list[bytes] = []
        for folder, name in places:
            content = await folder.read(name)
            if content is None:
                _log.warning("part_left_out", part=f"{folder.location}/{name}", reason="it is missing")
            elif sum(map(len, contents)) + len(content) > _MOST_BYTES:
                _log.warning("parts_left_out", first=f"{folder.location}/{name}", reason="more would not fit into a message")
                break
            contents.append(content or b"")
        return SlideResume(parts=[*contents, *[b""] * (len(places) - len(contents))])

    async def keep(self, saved: SlideCheckpoint, received: ReceivedArtifacts) -> None:
        """Take up a part that was saved. Raises as `ResultFolder` does, `TransientError`, `LeaseLostError`."""
        fence = self._context.claim.fence
        if not saved.file.uri:
            await self._folder_of(fence).write(saved.file.name, await received.whole(saved.file))
            await received.drop(saved.file.name)
        self._runs = [*(self._earlier if saved.resumed else ()), (fence, saved.part)]
        others = {"others": saved.resumed} if self._others else {}
        await self._context.checkpoint({"runs": self._runs, **others, "tiles_done": saved.tiles_done, "tiles_total": saved.tiles_total})

    async def finish(self, result: Mapping[str, Any], *, keep_parts: bool = False) -> Found:
        """Save what was found in the place of the parts, which are removed unless another job needs them. Raises `LeaseLostError`."""
        fence = self._context.claim.fence
        await self._context.checkpoint({"finished": {"fence": fence, "result": result}})
        if not keep_parts:
            for each in {fence, *(earlier for earlier, _ in self._earlier)}:
                await cleared(self._folder_of(each))
        return Found(fence=fence, result=result)


async def saved_in(tries: ResultFolder) -> Sequence[tuple[int, int]]:
    """Fences of the tries of a job that lie in the folder of all of them, with how many parts of each. Raises as `ResultFolder` does.

    For a job that cannot say itself which of them count: servers take none up that is of another state.
    """
    found: dict[int, int] = {}
    for name in await tries.names():
        if match := _PART.fullmatch(name):
            fence, part = int(match[1]), int(match[2])
            found[fence] = max(part, found.get(fence, 0))
    return sorted(found.items())


async def swept(tries: ResultFolder) -> None:
    """Remove the parts of all tries of a job, those too that no try has named."""
    try:
        for fence, _ in await saved_in(tries):
            await tries.clear(f"{fence}/{_FOLDER}")
    except BridgeError as error:  # they are in nobody's way
        _log.warning("parts_left_behind", reason=str(error))


async def cleared(folder: ResultFolder) -> None:
    """Remove the parts of a try."""
    try:
        await folder.clear(_FOLDER)
    except BridgeError as error:  # they are in nobody's way
        _log.warning("parts_left_behind", reason=str(error))


def _name(part: int) -> str:
    """As servers name it in a folder of which none of the parts is gone on from: each try has its own."""
    return f"{_FOLDER}/{part:06}.part"
