"""The files that a slide consists of: most are one, some are named by one of several."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from inference_server.errors import ContentChanged, InvalidSlide
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides.events import first_failure

# Most files of one slide that are copied.
_MOST_FILES = 10_000
# How a slide's name ends whose files lie in a folder beside it, and those of slides that are named by a file of text.
MIRAX, NAMED_BY_TEXT = ".mrxs", frozenset({".vms", ".vmu"})
# The file in the folder of an MRXS that tells its others, and the lines of it and of VMS that name what must be there: of VMS pictures of
# the middle plane of focus, the map and the macro image.
_SLIDEDAT = "Slidedat.ini"
_NAMES_IN_FOLDER = re.compile(rb"^(?:INDEXFILE|FILE_\d+)\s*=\s*(.+?)\s*$", re.MULTILINE)
_NAMES_BESIDE = re.compile(rb"^(?:ImageFile(?:\(0\)|\(0,\d+,\d+\)|\(\d+,\d+\))?|MapFile|MacroImage)\s*=\s*(.+?)\s*$", re.MULTILINE)
# Where the number of a DICOM series (0020,000E) begins, in explicit little endian, as images of slides are stored.
_SERIES = b"\x20\x00\x0e\x00UI"
# It stands before what is long.
_HEADER_BYTES = 64 * 1024
# Files whose series are looked up at a time.
_AT_A_TIME = 8


async def files_of(storage: Storage, found: StoredObject, *, dicom: bool) -> tuple[StoredObject, ...]:
    """The file that names a slide, then its others. `dicom`: those beside it of the same series belong to it.

    Raises `InvalidSlide` for one that lacks its folder or a file of it, `InvalidInput` where a store cannot tell, `ContentChanged`,
    `Unavailable`.
    """
    local = found.local_path is not None
    most = sys.maxsize if local else _MOST_FILES
    if found.suffix == MIRAX:
        folder = f"{found.key.removesuffix(Path(found.key).suffix)}/"
        others = await storage.list_below(found, folder, most=most)
        if not others:
            raise InvalidSlide(f"{found.uri} lacks its folder of data, {Path(found.key).stem}/ beside it. Upload it too.")
        slidedat = [each for each in others if each.key == folder + _SLIDEDAT]
        needed = _NAMES_IN_FOLDER.findall(await _text(storage, slidedat[0])) if slidedat else [_SLIDEDAT.encode()]
        _check_there(found, f"{Path(found.key).stem}/", needed, others)
        return (found, *others)
    if not dicom and found.suffix not in NAMED_BY_TEXT:
        return (found,)
    others = await (storage.list_beside(found) if local else _beside(storage, found))
    if dicom:
        return (found, *await _of_series(storage, found, others))
    text = await _text(storage, found)
    _check_there(found, "", _NAMES_BESIDE.findall(text), others)
    # A folder of this machine may hold other slides, which come and go.
    return (found, *([each for each in others if Path(each.key).name.encode() in text] if local else others))


async def _beside(storage: Storage, found: StoredObject) -> list[StoredObject]:
    """Objects of a store that lie in the same folder."""
    parent = found.key.rpartition("/")[0]
    below = await storage.list_below(found, f"{parent}/" if parent else "", most=_MOST_FILES)
    return [each for each in below if each.key != found.key and each.key.rpartition("/")[0] == parent]


async def _text(storage: Storage, found: StoredObject) -> bytes:
    """A file that names others, as far as it is one of text."""
    return await storage.read_range(found, 0, min(_HEADER_BYTES, found.size_bytes)) if found.size_bytes else b""


def _check_there(found: StoredObject, folder: str, names: list[bytes], others: list[StoredObject]) -> None:
    """Raise `InvalidSlide` for the first that is missing. `folder`: where they lie, seen from the file that names the slide."""
    there = {Path(each.key).name.encode() for each in others}
    if missing := [name for name in names if name not in there]:
        name = missing[0].decode("utf-8", "replace")
        raise InvalidSlide(
            f"{found.uri} lacks {folder}{name}, which belongs to it ({len(missing)} of its files are missing). Upload it too."
        )


async def _of_series(storage: Storage, found: StoredObject, others: list[StoredObject]) -> list[StoredObject]:
    """Those of a file's DICOM series; all where it tells none."""
    series = _series_in(await storage.read_range(found, 0, min(_HEADER_BYTES, found.size_bytes)))
    if not series:
        return others
    turns = asyncio.Semaphore(_AT_A_TIME)

    async def is_ours(other: StoredObject) -> bool:
        async with turns:
            try:
                return _series_in(await _head(storage, other)) == series
            except ContentChanged:
                # Whose it is shows when it is looked at again: until then it may be ours.
                return True

    with first_failure():
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(is_ours(other)) for other in others]
    return [other for other, answer in zip(others, asked, strict=True) if answer.result()]


async def _head(storage: Storage, other: StoredObject) -> bytes:
    """How a file begins; empty for one of this machine that cannot be read."""
    if other.local_path is not None:
        return await asyncio.to_thread(_head_here, other.local_path)
    return await storage.read_range(other, 0, min(_HEADER_BYTES, other.size_bytes)) if other.size_bytes else b""


def _head_here(path: Path) -> bytes:
    """In whatever state it is: others in the folder may be written, go, or not be ours to read; blocks."""
    try:
        with path.open("rb") as file:
            return file.read(_HEADER_BYTES)
    except OSError:
        return b""


def _series_in(head: bytes) -> bytes:
    """The UID of a file's series; empty where none is found."""
    _, mark, rest = head.partition(_SERIES)
    return rest[2 : 2 + int.from_bytes(rest[:2], "little")] if mark else b""
