"""Finds the reader of a slide by its first bytes, and says clearly when there is none."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from inference_server.errors import InvalidInput, InvalidSlide, Unavailable
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides.events import first_failure
from inference_server.tasks.slides.readers.files import MIRAX, NAMED_BY_TEXT, files_of
from inference_server.tasks.slides.readers.foreign import refuse_foreign
from inference_server.tasks.slides.readers.image import ImageReader
from inference_server.tasks.slides.readers.openslide import OpenSlideReader
from inference_server.tasks.slides.readers.port import NotThisReader, SlideReader
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.readers.tiff import TiffReader
from inference_server.tasks.slides.values import SlideFacts, SlideLimits

_log = structlog.get_logger()
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
# DICOM's mark comes last in the first 132 bytes.
_DICOM = b"DICM"
_HEAD_BYTES = 132
# Files of one slide that are looked at again at a time.
_CHECKED_AT_A_TIME = 8
# Of CZI, and of Sakura's databases.
_OTHERS = (b"ZISRAWFILE", b"SQLite format 3\x00")
_KNOWN = "TIFF (SVS, OME and generic pyramids), NDPI, MRXS, SCN, BIF, CZI, DICOM, or a PNG or JPEG"


@dataclass(frozen=True, kw_only=True)
class OpenedSlide:
    """A slide that is open, and the state in which its files were found."""

    reader: SlideReader
    # The one that names it, then the others that it consists of.
    files: tuple[StoredObject, ...]

    async def check_unchanged(self, storage: Storage) -> None:
        """Raise `ContentChanged` unless all files are as they were when it was opened; `Unavailable`."""
        await _check_unchanged(storage, self.files)


@contextlib.asynccontextmanager
async def opened(
    storage: Storage,
    uri: str,
    limits: SlideLimits,
    staging: Staging,
    *,
    moved: Callable[[], None] = lambda: None,
    is_read_over: Callable[[SlideFacts], bool] = lambda _: False,
) -> AsyncIterator[OpenedSlide]:
    """Open a slide for as long as the block lasts. `moved`: called whenever some of it has been copied.

    `is_read_over`: whether a slide will be read more than once as a whole; a remote one is copied then, where there is room for it.

    Raises `NotFound`, `AccessDenied`, `InvalidInput`, `InvalidSlide`, `ContentChanged`, `Unavailable`. What seems damaged in the block,
    and was replaced meanwhile, is told as `ContentChanged`.
    """
    if uri.endswith("/"):
        raise InvalidInput(f"{uri} names a folder. Name one file of the slide: of DICOM any of its series, of MRXS the .mrxs.")
    files: tuple[StoredObject, ...] = (await storage.open(uri),)
    try:
        head = await _head(storage, files[0])
        # DICOM and MIRAX may begin with anything.
        if not head.endswith(_DICOM) and files[0].suffix != MIRAX:
            refuse_foreign(uri, head, files[0].suffix)
        files = await _all_files(storage, files[0], head)
        async with contextlib.AsyncExitStack() as stack:
            copied = partial(staging.copied, moved=moved)
            found = _Found(storage=storage, files=files, head=head, limits=limits, copied=copied, stack=stack)
            reader = await _open(found)
            stack.push_async_callback(reader.close)
            if isinstance(reader, TiffReader) and files[0].is_far and is_read_over(reader.facts):
                reader = await _near(reader, found)
            yield OpenedSlide(reader=reader, files=files)
    except InvalidSlide:
        await _check_unchanged(storage, files)
        raise


@contextlib.asynccontextmanager
async def open_slide(storage: Storage, uri: str, limits: SlideLimits, staging: Staging) -> AsyncIterator[SlideReader]:
    """The reader of a slide that is `opened`."""
    async with opened(storage, uri, limits, staging) as slide:
        yield slide.reader


async def _check_unchanged(storage: Storage, files: Sequence[StoredObject]) -> None:
    waiting = iter(files)

    async def check() -> None:
        for each in waiting:
            await storage.check_unchanged(each)

    with first_failure():
        async with asyncio.TaskGroup() as group:
            for _ in range(_CHECKED_AT_A_TIME):
                group.create_task(check())


async def _head(storage: Storage, found: StoredObject) -> bytes:
    if found.size_bytes == 0:
        raise InvalidSlide(f"{found.uri} is empty (0 bytes). Upload it again.")
    return await storage.read_range(found, 0, min(_HEAD_BYTES, found.size_bytes))


async def _all_files(storage: Storage, found: StoredObject, head: bytes) -> tuple[StoredObject, ...]:
    return (found,) if head.startswith(_TIFF) else await files_of(storage, found, dicom=head.endswith(_DICOM))


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A slide that is to be opened: its files, and what opens them."""

    storage: Storage
    # The one that names it first.
    files: tuple[StoredObject, ...]
    # First bytes of that one.
    head: bytes
    limits: SlideLimits
    # Copies files to the local disk.
    copied: Callable[[Sequence[StoredObject]], contextlib.AbstractAsyncContextManager[Path]]
    # Closes when the slide does.
    stack: contextlib.AsyncExitStack

    async def copy(self) -> Path:
        """Where the named file lies on the local disk, with the others beside it, for as long as the slide is open."""
        return await self.stack.enter_async_context(self.copied(self.files))

    async def read_as_tiff(self, named: StoredObject) -> TiffReader:
        """Read the named file, or its copy."""
        return await TiffReader.open(self.storage, named, self.head, self.limits)


async def _near(reader: TiffReader, found: _Found) -> TiffReader:
    """A slide that is read in place, from a copy; as it is, where it cannot be copied."""
    try:
        copy = await found.storage.copy_of(found.files[0], await found.copy())
    except (InvalidSlide, Unavailable) as error:
        _log.info("slide_read_in_place", reason=str(error))
        return reader
    near = await found.read_as_tiff(copy)
    found.stack.push_async_callback(near.close)
    return near


async def _open(found: _Found) -> SlideReader:
    head, named = found.head, found.files[0]
    if head.startswith(_TIFF):
        try:
            readable = named if named.comes_in_parts else await found.storage.copy_of(named, await found.copy())
            return await found.read_as_tiff(readable)
        except NotThisReader as error:
            reason = str(error)
    else:
        reason = f"{named.uri} is no slide: it begins with {head[:8]!r}, and {_KNOWN} was expected"
    # The file that names a MIRAX slide begins as a picture, and is none.
    is_picture = head.startswith((*_TIFF, *_PICTURES)) and named.suffix != MIRAX
    is_other = head.endswith(_DICOM) or head.startswith(_OTHERS) or named.suffix in (*NAMED_BY_TEXT, MIRAX)
    if named.local_path is None and not is_picture and not is_other:
        raise InvalidSlide(f"{reason}. Check that the file is what its name says, and that it was uploaded whole.")
    # OpenSlide and Pillow read no URLs.
    path = await found.copy()
    try:
        return await OpenSlideReader.open(named.uri, path, found.limits)
    except NotThisReader as error:
        if is_picture:
            return await ImageReader.open(named.uri, path, found.limits)
        if named.suffix == MIRAX:
            reason = f"{named.uri} is not taken for a MIRAX slide, whose name ends in {MIRAX} and whose folder has the same name"
        raise InvalidSlide(f"{reason}. Check that the file is what its name says, and that it was uploaded whole.") from error
