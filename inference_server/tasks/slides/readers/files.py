"""The files that a slide consists of: most are one, some are named by one of several."""

from __future__ import annotations

import sys
from pathlib import Path

from inference_server.errors import InvalidSlide
from inference_server.storage import Storage
from inference_server.stored import StoredObject

# Most files of one slide that are copied.
_MOST_FILES = 10_000
_FOLDER_BESIDE = ".mrxs"
_FILES_BESIDE = frozenset({".vms", ".vmu"})
# Where the number of a DICOM series (0020,000E) begins, in explicit little endian, as images of slides are stored.
_SERIES = b"\x20\x00\x0e\x00UI"
# It stands before what is long.
_HEADER_BYTES = 64 * 1024


async def files_of(storage: Storage, found: StoredObject, *, dicom: bool) -> tuple[StoredObject, ...]:
    """The file that names a slide, then its others. `dicom`: those beside it belong to it.

    Raises `InvalidSlide` for one that lacks its folder, `InvalidInput` where a store cannot tell, `ContentChanged`, `Unavailable`.
    """
    local = found.local_path is not None
    most = sys.maxsize if local else _MOST_FILES
    if found.suffix == _FOLDER_BESIDE:
        others = await storage.list_below(found, f"{found.key.removesuffix(Path(found.key).suffix)}/", most=most)
        if not others and not local:
            raise InvalidSlide(f"{found.uri} lacks its folder of data, {Path(found.key).stem}/ beside it. Upload it too.")
        return (found, *others)
    if not dicom and found.suffix not in _FILES_BESIDE:
        return (found,)
    parent = found.key.rpartition("/")[0]
    beside = await storage.list_below(found, f"{parent}/" if parent else "", most=most, deep=not local)
    others = [each for each in beside if each.key != found.key and each.key.rpartition("/")[0] == parent]
    if not local:
        return (found, *others)
    # A folder of this machine may hold other slides, which come and go.
    return (found, *await (_of_series if dicom else _named)(storage, found, others))


async def _named(storage: Storage, found: StoredObject, others: list[StoredObject]) -> list[StoredObject]:
    """Those that a file of text names."""
    text = await storage.read_range(found, 0, min(_HEADER_BYTES, found.size_bytes))
    return [each for each in others if Path(each.key).name.encode() in text]


async def _of_series(storage: Storage, found: StoredObject, others: list[StoredObject]) -> list[StoredObject]:
    series = await _series(storage, found)
    return [each for each in others if await _series(storage, each) == series] if series else others


async def _series(storage: Storage, found: StoredObject) -> bytes:
    """The UID of a file's series; empty where none is found."""
    if not found.size_bytes:
        return b""
    head = await storage.read_range(found, 0, min(_HEADER_BYTES, found.size_bytes))
    _, mark, rest = head.partition(_SERIES)
    return rest[2 : 2 + int.from_bytes(rest[:2], "little")] if mark else b""
