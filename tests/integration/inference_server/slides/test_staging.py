"""Copies of remote slides on local disk: bounded, shared, whole, and gone in time."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_server.errors import ContentChanged, InvalidSlide
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides.readers.files import files_of
from inference_server.tasks.slides.readers.opening import opened
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import SlideLimits
from inference_server.threads import in_thread
from tests.support.patience import until
from tests.support.slides.range_server import RangeServer, range_server

SIZE = 300_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RangeServer]:
    folder = tmp_path_factory.mktemp("store")
    for number, name in enumerate("abc"):
        place(folder / f"slides/{name}.ndpi", number)
    (folder / "slides/odd.czi").write_bytes(b"ZISRAWFILE" + bytes(SIZE))
    place(folder / "slides/x.mrxs", 7)
    for number, name in enumerate(("Slidedat.ini", "Index.dat", "deep/Data0000.dat")):
        place(folder / "slides/x" / name, number)
    place(folder / "slides/xy/Slidedat.ini", 9)
    place(folder / "slides/lonely.mrxs", 8)
    with (folder / "slides/large.ndpi").open("wb") as file:
        file.truncate(200 * SIZE)
    with range_server(folder) as server:
        yield server


def place(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([number]) * (SIZE + number))


@pytest.fixture
def storage(store: RangeServer, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name, value in store.s3_environment.items():
        monkeypatch.setenv(name, value)
    return Storage(read_roots=("s3://slides",), write_roots=(), allow_http=True)


class Desk:
    """Opens copies of slides by name."""

    def __init__(self, storage: Storage, folder: Path, room: int) -> None:
        self._storage = storage
        self.folder = folder
        self.staging = Staging(storage, most_bytes=room, folder=folder)

    @contextlib.asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[Path]:
        found = await self._storage.open(f"s3://slides/{name}")
        async with self.staging.copied(await files_of(self._storage, found, dicom=False)) as path:
            yield path

    def on_disk(self) -> set[str]:
        return {path.name for path in self.folder.rglob("*") if path.is_file() and path.stat().st_size}


async def test_requests_for_one_slide_share_a_copy(storage: Storage, store: RangeServer, tmp_path: Path) -> None:
    desk = Desk(storage, tmp_path, 10 * SIZE)
    before = store.sent().body_bytes

    async def content() -> bytes:
        async with desk.open("a.ndpi") as path:
            return path.read_bytes()

    assert {bytes(SIZE)} == set(await asyncio.gather(*(content() for _ in range(8))))
    assert bytes(SIZE) == await content()
    assert SIZE == store.sent().body_bytes - before


async def test_the_longest_unused_copy_makes_room(storage: Storage, store: RangeServer, tmp_path: Path) -> None:
    desk = Desk(storage, tmp_path, 2 * SIZE + 10)
    for name in ("a.ndpi", "b.ndpi", "a.ndpi", "c.ndpi"):
        async with desk.open(name):
            pass
    assert {"a.ndpi", "c.ndpi"} == desk.on_disk()
    before = store.sent().body_bytes
    async with desk.open("a.ndpi"):
        pass
    assert before == store.sent().body_bytes


async def test_a_slide_waits_for_room_that_others_use(storage: Storage, tmp_path: Path) -> None:
    desk = Desk(storage, tmp_path, 2 * SIZE - 10)
    async with desk.open("a.ndpi"):
        waiting = asyncio.create_task(desk.open("b.ndpi").__aenter__())
        await asyncio.sleep(0.2)
        assert not waiting.done()
        assert {"a.ndpi"} == desk.on_disk()
    assert "b.ndpi" == (await asyncio.wait_for(waiting, 60)).name
    assert {"b.ndpi"} == desk.on_disk()


async def test_a_slide_of_many_files_comes_whole(storage: Storage, tmp_path: Path) -> None:
    desk = Desk(storage, tmp_path, 10 * SIZE)
    async with desk.open("x.mrxs") as path:
        below = {str(file.relative_to(path.parent)) for file in path.parent.rglob("*") if file.is_file()}
        assert {"x.mrxs", "x/Slidedat.ini", "x/Index.dat", "x/deep/Data0000.dat"} == below
        assert bytes([2]) * (SIZE + 2) == (path.parent / "x/deep/Data0000.dat").read_bytes()


async def test_a_slide_without_its_folder_says_so(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(InvalidSlide, match=r"lonely.mrxs lacks its folder of data, lonely/ beside it"):
        async with Desk(storage, tmp_path, 10 * SIZE).open("lonely.mrxs"):
            pass


async def test_a_slide_larger_than_all_room_is_refused(storage: Storage, store: RangeServer, tmp_path: Path) -> None:
    before = store.sent().body_bytes
    with pytest.raises(
        InvalidSlide, match=r"must be copied to local disk to be read, and has 300,000 bytes; at most 1,000 are.*INFERENCE_MAX_STAGED_BYTES"
    ):
        async with Desk(storage, tmp_path, 1000).open("a.ndpi"):
            pass
    assert before == store.sent().body_bytes


async def test_who_goes_away_while_it_is_copied_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    desk = Desk(storage, tmp_path, 200 * SIZE)
    opening = asyncio.create_task(desk.open("large.ndpi").__aenter__())
    while not list(tmp_path.rglob("*.ndpi")) and not opening.done():
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    assert set() == desk.on_disk()
    async with desk.open("a.ndpi") as path:
        assert SIZE == path.stat().st_size


async def test_a_copy_that_is_called_off_while_the_disk_does_not_answer_holds_up_nobody_else(storage: Storage, tmp_path: Path) -> None:
    """A pipe that nobody reads is that disk; it answers when others went on, or in the end."""
    found, goes_on = await storage.open("s3://slides/large.ndpi"), threading.Event()
    os.mkfifo(tmp_path / "copy")
    pipe = os.open(tmp_path / "copy", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(pipe, True)

    def answer() -> None:
        goes_on.wait(30)
        while os.read(pipe, 2**20):
            pass

    copying = asyncio.create_task(storage.download(found, tmp_path / "copy"))
    await until(lambda: select.select([pipe], [], [], 0)[0])
    answering = asyncio.create_task(asyncio.to_thread(answer))
    copying.cancel()
    await asyncio.sleep(0.1)
    assert not copying.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await copying
    await answering
    os.close(pipe)


async def test_a_copy_that_does_not_end_keeps_its_room_and_no_other_slide_waits_for_it(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, original = Desk(storage, tmp_path, 203 * SIZE), Storage.download
    begun, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        goes_on.wait(60)

    async def download(self: Storage, found: StoredObject, path: Path, **told: Any) -> None:
        if path.name == "large.ndpi":
            path.touch()
            await in_thread(hang)
        await original(self, found, path, **told)

    monkeypatch.setattr(Storage, "download", download)
    opening = asyncio.create_task(desk.open("large.ndpi").__aenter__())
    await until(begun.is_set)
    # Twice, as by a client that goes away from a server that stops.
    for _ in range(2):
        opening.cancel()
        await asyncio.sleep(0.01)
    async with desk.open("a.ndpi"), desk.open("b.ndpi"):
        third = asyncio.create_task(desk.open("c.ndpi").__aenter__())
        await asyncio.sleep(0.1)
        assert not third.done()
        goes_on.set()
        assert "c.ndpi" == (await asyncio.wait_for(third, 60)).name
    assert not list(tmp_path.rglob("large.ndpi"))


async def test_all_who_wait_for_a_copy_are_told_that_it_moves(storage: Storage, tmp_path: Path) -> None:
    staging, found = Staging(storage, most_bytes=300 * SIZE, folder=tmp_path), await storage.open("s3://slides/large.ndpi")
    told: list[str] = []

    async def copied(name: str) -> None:
        async with staging.copied([found], moved=lambda: told.append(name)):
            pass

    await asyncio.gather(copied("first"), copied("second"))
    assert told.count("first") == told.count("second") >= 3
    before = len(told)
    await copied("third")
    assert before == len(told)


async def test_who_opens_a_slide_is_told_that_its_copy_moves(storage: Storage, tmp_path: Path) -> None:
    staging, told = Staging(storage, most_bytes=10 * SIZE, folder=tmp_path), list[str]()
    with pytest.raises(InvalidSlide):
        async with opened(storage, "s3://slides/odd.czi", SlideLimits(), staging, moved=lambda: told.append("copied")):
            pass
    assert ["copied"] == told


async def test_a_copy_that_fails_says_so_to_all_who_wait_and_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    place(folder / "d.ndpi", 4)
    with range_server(folder) as server:
        storage = Storage(read_roots=(server.url,), write_roots=(), allow_http=True)
        found = await storage.open(f"{server.url}/d.ndpi")
        staging = Staging(storage, most_bytes=10 * SIZE, folder=tmp_path / "staging")
        (folder / "d.ndpi").rename(folder / "gone.ndpi")
        server.forget()

        async def opened() -> int:
            async with staging.copied([found]) as path:
                return path.stat().st_size

        for failed in await asyncio.gather(opened(), opened(), return_exceptions=True):
            assert isinstance(failed, ContentChanged)
            assert "d.ndpi was replaced or removed" in str(failed)
        (folder / "gone.ndpi").rename(folder / "d.ndpi")
        assert SIZE + 4 == await opened()


async def test_a_folder_that_was_swept_before_it_was_locked_is_made_anew(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, lock = Staging(storage, most_bytes=SIZE, folder=tmp_path), fcntl.flock
    swept: list[Path] = []

    def slowly(file: Any, operation: int) -> None:
        if not swept:
            swept.extend(tmp_path.glob("lamina-slides-*"))
            starting.sweep()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", slowly)
    desk = Desk(storage, tmp_path, 10 * SIZE)
    async with desk.open("a.ndpi") as path:
        assert (1, SIZE) == (len(swept), path.stat().st_size)
        assert not swept[0].exists()
        starting.sweep()
        assert path.exists()


async def test_what_killed_servers_left_is_removed_and_what_others_use_is_not(storage: Storage, tmp_path: Path) -> None:
    abandoned = tmp_path / "lamina-slides-abandoned"
    abandoned.mkdir()
    (abandoned / "in-use").touch()
    (abandoned / "old.ndpi").write_bytes(b"old")
    first, second = Desk(storage, tmp_path, 10 * SIZE), Desk(storage, tmp_path, 10 * SIZE)
    async with first.open("a.ndpi") as held, second.open("b.ndpi"):
        assert held.exists()
        assert {"a.ndpi", "b.ndpi"} == first.on_disk()
