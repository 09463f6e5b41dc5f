"""Looks through the directories of a TIFF before async-tiff does.

It panics on some, which writes a backtrace among the logs, and on others asks for more memory than there is, which ends the process.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from inference_server.errors import InvalidSlide
from inference_server.storage import Storage, StoredObject
from inference_server.tasks.slides.readers.port import NotThisReader

# Width, height, bits per sample, photometric interpretation, samples per pixel. TIFF lets the last three be missing.
_NEEDED = frozenset({256, 257, 258, 262, 277})
_RESOLUTIONS = (282, 283)
_PHOTOMETRIC = 262
_KNOWN_PHOTOMETRICS = frozenset({0, 1, 2, 3, 4, 5, 6, 8})
# Of maps: async-tiff takes apart what is in it.
_GEO_KEYS = 34735
_TEXT, _SHORT, _RATIO = 2, 3, 5
# Bytes of a value of each type.
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_CHUNK_BYTES = 16 * 1024
# Of one directory.
_LARGEST_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How numbers are stored: `struct` formats of the count of entries, of one entry and of an offset."""

    count: struct.Struct
    # Tag, type, count, and the value where it fits in.
    entry: struct.Struct
    offset: struct.Struct
    short: struct.Struct
    # Where the offset of the first directory is.
    first: int

    @staticmethod
    def of(head: bytes) -> _Layout:
        order = "<" if head.startswith(b"II") else ">"
        count, entry, offset, first = ("Q", "HHQ8s", "Q", 8) if b"+" in head[2:4] else ("H", "HHI4s", "I", 4)
        return _Layout(
            count=struct.Struct(order + count),
            entry=struct.Struct(order + entry),
            offset=struct.Struct(order + offset),
            short=struct.Struct(f"{order}H"),
            first=first,
        )


async def check_tags(storage: Storage, found: StoredObject, head: bytes) -> None:
    """Raise `NotThisReader` where async-tiff would panic, `InvalidSlide` where something is larger than the file, and `Unavailable`."""
    layout = _Layout.of(head)
    if len(head) < layout.first + layout.offset.size:
        return
    (place,) = layout.offset.unpack_from(head, layout.first)
    seen: set[int] = set()
    while place:
        if place in seen:
            raise _damaged(found.uri, "directories form a circle")
        seen.add(place)
        stored = await _read(storage, found, place, _CHUNK_BYTES)
        if len(stored) < layout.count.size:
            return
        (count,) = layout.count.unpack_from(stored)
        end = layout.count.size + count * layout.entry.size
        if end + layout.offset.size > min(found.size_bytes - place, _LARGEST_BYTES):
            raise _damaged(found.uri, "directory points past its end")
        if end + layout.offset.size > len(stored):
            stored = await _read(storage, found, place, end + layout.offset.size)
        _check(found, layout, layout.entry.iter_unpack(stored[layout.count.size : end]))
        (place,) = layout.offset.unpack_from(stored, end)


async def _read(storage: Storage, found: StoredObject, start: int, length: int) -> bytes:
    length = min(length, found.size_bytes - start)
    return await storage.read_range(found, start, length) if length > 0 else b""


def _check(found: StoredObject, layout: _Layout, entries: Iterator[tuple[int, int, int, bytes]]) -> None:
    tags = set()
    for tag, kind, count, value in entries:
        tags.add(tag)
        if count * _WIDTHS.get(kind, 1) > found.size_bytes:
            raise _damaged(found.uri, "directory points past its end")
        if _is_odd(layout, tag, kind, count, value):
            raise NotThisReader(f"{found.uri} is a TIFF whose tag {tag} is stored in a way that TIFF does not know")
    if missing := sorted(_NEEDED - tags):
        raise NotThisReader(f"{found.uri} is a TIFF with a directory that lacks the tag {missing[0]}")


def _is_odd(layout: _Layout, tag: int, kind: int, count: int, value: bytes) -> bool:
    if kind not in _WIDTHS or tag == _GEO_KEYS:
        return True
    if tag in _RESOLUTIONS:
        return (kind, count) != (_RATIO, 1)
    if tag == _PHOTOMETRIC:
        return (kind, count) != (_SHORT, 1) or layout.short.unpack_from(value)[0] not in _KNOWN_PHOTOMETRICS
    return kind == _TEXT and 0 < count <= len(value) and (value[count - 1] != 0 or not value[:count].isascii())


def _damaged(uri: str, what: str) -> InvalidSlide:
    return InvalidSlide(f"{uri} begins as a TIFF, but its {what}: it is truncated or damaged. Copy or upload it again, whole.")
