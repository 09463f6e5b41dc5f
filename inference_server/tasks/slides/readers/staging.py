"""Copies of remote slides on local disk, for readers that know no URLs: bounded in bytes, shared by requests, the oldest let go first."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_server.errors import InvalidSlide, Unavailable
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides import own_folders
from inference_server.tasks.slides.events import first_failure
from inference_server.threads import in_thread

_PREFIX = "lamina-slides-"
# Files of one slide that are copied at a time.
_AT_A_TIME = 8

_Key = tuple[tuple[str, int, str], ...]


@dataclass(kw_only=True, eq=False)
class _Copy:
    """One slide on disk, or on its way there."""

    folder: Path
    size_bytes: int
    copying: asyncio.Task[None]
    # Readers that have it open, or wait for it.
    users: int = 0
    # What those who wait want called whenever some of it has come.
    watchers: list[Callable[[], None]]
    # Its removal, once that has begun.
    removal: asyncio.Task[None] | None = None


class Staging:
    """The copies of one server. What servers that were killed left behind in the same folder is removed."""

    def __init__(self, storage: Storage, *, most_bytes: int, folder: Path | None = None) -> None:
        """`most_bytes`: of all copies, those in use too; `folder`: made when it is needed; the system's temporary folder if None."""
        self._storage = storage
        self._most_bytes = most_bytes
        # Copies are named from here, wherever whoever reads them stands.
        self._parent = (folder or Path(tempfile.gettempdir())).absolute()
        self._folder: Path | None = None
        self._copies: OrderedDict[_Key, _Copy] = OrderedDict()
        # Those that are being removed, and keep their room until they are gone.
        self._leaving: list[_Copy] = []
        self._changed = asyncio.Condition()

    def sweep(self) -> None:
        """Remove what killed servers left behind; blocks. Folders of servers that run are locked, and stay."""
        with contextlib.suppress(OSError):
            own_folders.sweep(self._parent, _PREFIX)

    @contextlib.asynccontextmanager
    async def copied(self, files: Sequence[StoredObject], *, moved: Callable[[], None] = lambda: None) -> AsyncIterator[Path]:
        """Where a slide of these files lies on this machine for as long as the block lasts; the first names it.

        `moved`: called whenever some of it has been copied. Waits while readers of other slides need the room. Raises `InvalidSlide` for
        a slide that is larger than all room, `ContentChanged`, and `Unavailable`.
        """
        found = files[0]
        if found.local_path is not None:
            yield found.local_path
            return
        copy = await self._copy(files)
        copy.watchers.append(moved)
        try:
            await asyncio.shield(copy.copying)
            yield copy.folder / Path(found.key).name
        finally:
            copy.watchers.remove(moved)
            await self._let_go(copy)

    async def _copy(self, files: Sequence[StoredObject]) -> _Copy:
        """The copy of a slide, taken into use."""
        key = tuple((each.uri, each.size_bytes, each.revision) for each in files)
        size = sum(each.size_bytes for each in files)
        if size > self._most_bytes:
            raise InvalidSlide(
                f"{files[0].uri} must be copied to local disk to be read, and has {size:,} bytes; at most {self._most_bytes:,} are. "
                "Put it as a tiled TIFF into a store that serves ranges, where it is read in place, or raise INFERENCE_MAX_STAGED_BYTES.",
                limit="staged_bytes",
            )
        async with self._changed:
            while key not in self._copies and not self._make_room(size):
                await self._changed.wait()
            if key not in self._copies:
                folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=await asyncio.to_thread(self._own_folder)))
                watchers: list[Callable[[], None]] = []
                copying = asyncio.create_task(self._download(files, folder, watchers))
                self._copies[key] = _Copy(folder=folder, size_bytes=size, copying=copying, watchers=watchers)
            copy = self._copies[key]
            self._copies.move_to_end(key)
            copy.users += 1
            return copy

    def _make_room(self, size: int) -> bool:
        """Have what nobody uses removed, the longest unused first, until so many bytes will fit in; whether they do already."""
        for key, copy in list(self._copies.items()):
            if _bytes(self._copies.values()) + size <= self._most_bytes:
                break
            if copy.users == 0:
                self._remove(key)
        return _bytes((*self._copies.values(), *self._leaving)) + size <= self._most_bytes

    def _remove(self, key: _Key) -> asyncio.Task[None]:
        """Take a copy away, for which nobody else waits: its disk may hang."""
        copy = self._copies.pop(key)
        self._leaving.append(copy)
        copy.removal = asyncio.create_task(self._removed(copy))
        return copy.removal

    async def _removed(self, copy: _Copy) -> None:
        copy.copying.cancel()
        await asyncio.gather(copy.copying, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, copy.folder, ignore_errors=True)
        async with self._changed:
            self._leaving.remove(copy)
            self._changed.notify_all()

    async def _let_go(self, copy: _Copy) -> None:
        copy.users -= 1
        unfinished = not copy.copying.done() or copy.copying.cancelled() or copy.copying.exception() is not None
        if unfinished and copy.users == 0:
            for key in [key for key, each in self._copies.items() if each is copy]:
                await asyncio.shield(self._remove(key))
        async with self._changed:
            self._changed.notify_all()

    async def _download(self, files: Sequence[StoredObject], folder: Path, watchers: Sequence[Callable[[], None]]) -> None:
        turns = asyncio.Semaphore(_AT_A_TIME)
        top = files[0].key.rpartition("/")[0]

        def moved() -> None:
            for watcher in watchers:
                watcher()

        async def one(found: StoredObject) -> None:
            path = folder / found.key.removeprefix(top).lstrip("/")
            async with turns:
                try:
                    await in_thread(path.parent.mkdir, parents=True, exist_ok=True)
                except OSError as error:
                    raise Unavailable(f"{found.uri} cannot be copied to local disk ({error.strerror}); try again.") from error
                await self._storage.download(found, path, moved=moved)

        with first_failure():
            async with asyncio.TaskGroup() as group:
                for found in files:
                    group.create_task(one(found))

    def _own_folder(self) -> Path:
        """This server's folder, locked for as long as it runs; blocks."""
        if self._folder is None:
            try:
                self._parent.mkdir(parents=True, exist_ok=True)
                own_folders.sweep(self._parent, _PREFIX)
                folder, lock = own_folders.make(self._parent, _PREFIX)
            except OSError as error:
                raise Unavailable(
                    f"slides cannot be copied to {self._parent} ({error.strerror}). Name another folder in INFERENCE_STAGING."
                ) from error
            weakref.finalize(self, _clean, folder, lock)
            self._folder = folder
        return self._folder


def _bytes(copies: Iterable[_Copy]) -> int:
    return sum(copy.size_bytes for copy in copies)


def _clean(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
