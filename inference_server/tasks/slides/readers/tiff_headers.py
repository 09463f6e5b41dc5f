"""The directories of a TIFF, wherever they lie in it, brought together before async-tiff reads them.

async-tiff reads a file from its beginning up to the last directory, which in most slides lies at the end: all of the slide. It
panics on some directories, which writes a backtrace among the logs, and on others asks for more memory than there is, which ends the
process. So they are read and checked here, range by range, and handed over as a small BigTIFF of directories alone. Where tiles are
pictures of their own they are read without async-tiff, which then is not told their places: to take apart those of a large slide took it
most of the time of opening. Other tiles it takes to begin at `SHIFT`. The slide comes first, which may be any of the
file's images; levels that are kept in directories below it follow.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference_server.errors import InvalidSlide
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides.readers import ome
from inference_server.tasks.slides.readers.port import NotThisReader
from inference_server.tasks.slides.readers.tiff_layout import WIDTHS, Directory, Entry, Layout, whole_number, whole_numbers
from inference_server.threads import on_core

# Added to the places of tiles; beyond what any file has.
SHIFT = 1 << 48
ICC_PROFILE, FILL_ORDER = 34675, 266
XMP, ARGOS_METADATA = 700, 65000
# Width, height, bits per sample, photometric interpretation, samples per pixel. TIFF lets the last three be missing.
_NEEDED = frozenset({256, 257, 258, 262, 277})
_RESOLUTIONS = (282, 283)
# TIFF 6.0 knows none, inches and centimetres; some programs write others.
_RESOLUTION_UNIT, _CENTIMETRE = 296, 3
_WIDTH, _HEIGHT, _PHOTOMETRIC, _DESCRIPTION = 256, 257, 262, 270
_KNOWN_PHOTOMETRICS = frozenset({0, 1, 2, 3, 4, 5, 6, 8})
# Of maps: async-tiff takes apart what is in it.
_GEO_KEYS = 34735
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTE_COUNTS, _SUB_DIRECTORIES = 322, 323, 324, 325, 330
_COMPRESSION, _PLANAR_CONFIGURATION, _PLANAR = 259, 284, 2
# JPEG, WebP, and JPEG 2000: Aperio's own numbers for Y, Cb, Cr and for R, G, B, and the registered one. By the last of these numbers
# libvips means Y, Cb, Cr, whatever photometric it tells, and Bio-Formats and tifffile R, G, B.
_JPEG, WEBP, JPEG2000_YCBCR, JPEG2000_OF_EITHER = 7, 50001, 33003, 33004
JPEG2000 = frozenset({JPEG2000_YCBCR, 33005, 34712})
# A mark of NDPI, which is no BigTIFF and yet has places of eight bytes: four of them would be wrong in a file of more than 4 GiB.
_NDPI_FORMAT = 65420
# What is handed over: what these readers ask for, or async-tiff needs for the tiles. Scanners keep megabytes in tags of their own.
_KEPT = frozenset(
    {254, 259, FILL_ORDER, 270, 284, 296, 305, 317, 322, 323, 325, 338, 339, 347, ICC_PROFILE, XMP, ARGOS_METADATA, *_RESOLUTIONS, *_NEEDED}
)
_TEXT, _SHORT, _RATIO, _LONG8 = 2, 3, 5, 16
_CHUNK_BYTES = 4 * 1024
# Of one directory, its values aside.
_LARGEST_BYTES = 2**20
# Of the values of all: the places of some 20 million tiles. Directories may have values in common, so that a small file tells of many.
_LARGEST_VALUES_BYTES = 2**28
# And in one of texts, profile and JPEG's tables, which have a few megabytes at most: a hundred of text are searched for seconds.
_LARGEST_TEXTS_BYTES = 2**24
# Of one tile, whoever reads it.
_LARGEST_TILE_PIXELS = 2**26
_TEXTS = frozenset({_DESCRIPTION, 305, 347, ICC_PROFILE, XMP, ARGOS_METADATA})


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the tiles of a directory lie in the file, as it tells them."""

    # Whether each is a picture of its own, its colours together: async-tiff is not told of them.
    of_pictures: bool
    # Where they begin, and their lengths; damaged files tell too few.
    offsets: NDArray[np.uint64]
    byte_counts: NDArray[np.uint64]

    @staticmethod
    def of(layout: Layout, directory: Directory) -> Places:
        """Of one directory."""
        is_coded = whole_number(layout, directory, _COMPRESSION) in {_JPEG, WEBP, *JPEG2000}
        offsets, byte_counts = whole_numbers(layout, directory, _TILE_OFFSETS), whole_numbers(layout, directory, _TILE_BYTE_COUNTS)
        told = min(len(offsets), len(byte_counts))
        return Places(
            of_pictures=is_coded and whole_number(layout, directory, _PLANAR_CONFIGURATION) != _PLANAR,
            offsets=offsets[:told],
            byte_counts=byte_counts[:told],
        )


@dataclass(frozen=True, kw_only=True)
class Headers:
    """The directories of a TIFF."""

    # A BigTIFF of them, the slide's first.
    file: bytes
    # Whether it comes first in the file too.
    comes_first: bool
    # Of the tiles of each, in the same order.
    places: Sequence[Places]


async def read_headers(storage: Storage, found: StoredObject, head: bytes) -> Headers:
    """Those of a file. `head`: its first bytes.

    Raises `NotThisReader` where async-tiff would panic, `InvalidSlide` where something is larger than the file, and `Unavailable`.
    """
    order = "<" if head.startswith(b"II") else ">"
    layout = Layout.of(order, big=b"+" in head[2:4])
    if len(head) < layout.first + layout.offset.size:
        raise _damaged(found.uri, "header is cut short")
    (place,) = layout.offset.unpack_from(head, layout.first)
    (far,) = struct.unpack_from(f"{order}Q", head.ljust(layout.first + 8, b"\x00"), layout.first)
    if place < far < found.size_bytes:
        await _check_far(storage, found, layout, far)
    chain, seen, held = list[Directory](), set[int](), 0
    while place:
        entries, place = await _walked(storage, found, layout, place, seen)
        chain.append(await _values(storage, found, layout, entries, held=held))
        held += _size(chain[-1])
    if not chain:
        # As writers leave it until they are done. Of a file without directories async-tiff takes the header for one.
        raise InvalidSlide(
            f"{found.uri} is a TIFF that tells of no image: its writer did not finish, or has not yet. Copy or export it again, whole."
        )
    # Not on the event loop: a long description takes seconds to take apart.
    number, (first, *others) = await on_core(_slide_first, found, layout, chain)
    lower = list[Directory]()
    for where in _below(layout, first):
        entries, _ = await _walked(storage, found, layout, where, seen)
        lower.append(await _values(storage, found, layout, entries, held=held))
        held += _size(lower[-1])
    directories = [first, *lower, *others]
    places = [Places.of(layout, each) for each in directories]
    return Headers(file=_written(order, directories, places), comes_first=number == 0, places=places)


def _slide_first(found: StoredObject, layout: Layout, chain: Sequence[Directory]) -> tuple[int, list[Directory]]:
    """The slide's number in the chain; then its directory and those that may be its levels, of OME-TIFF no image of its own.

    There the slide has the file's description.
    """
    description = [(entry, value) for entry, value in chain[0] if entry.tag == _DESCRIPTION]
    text = description[0][1].decode("utf-8", "replace") if description else ""
    images = ome.images_of(text, Path(found.key).name)
    slide = ome.slide_of(images, [(whole_number(layout, each, _WIDTH), whole_number(layout, each, _HEIGHT)) for each in chain])
    if slide is None:
        number = _largest(layout, chain)
        others = [*chain[:number], *chain[number + 1 :]]
        # What came before it may be smaller levels, from small to large.
        return number, [chain[number], *(sorted(others, key=lambda each: -whole_number(layout, each, _WIDTH)) if number else others)]
    alone = {image.directory for image in images} | {slide.directory}
    base = [each for each in chain[slide.directory] if each[0].tag != _DESCRIPTION] + description
    others = [directory for number, directory in enumerate(chain) if number not in alone]
    return slide.directory, [sorted(base, key=lambda each: each[0].tag), *others]


def _largest(layout: Layout, chain: Sequence[Directory]) -> int:
    """The number of the largest tiled image, the first of equals: a macro image, a label or a smaller level may come before it.

    Of a slide without tiles it is the first: what is in tiles then may be overviews of it.
    """
    sizes = [whole_number(layout, each, _WIDTH) * whole_number(layout, each, _HEIGHT) for each in chain]
    is_tiled = [any(entry.tag == _TILE_WIDTH for entry, _ in each) for each in chain]
    largest = max(range(len(chain)), key=lambda number: sizes[number] if is_tiled[number] else -1)
    # A first one without pixels is damaged, and the slide none of the others.
    return largest if sizes[0] and (is_tiled[0] or sizes[largest] == max(sizes)) else 0


async def _check_far(storage: Storage, found: StoredObject, layout: Layout, place: int) -> None:
    """Raise `NotThisReader` where a directory of an NDPI lies at a place of eight bytes, of which a TIFF would take four."""
    stored = await _read(storage, found, place, _CHUNK_BYTES)
    size, first = layout.entry.size, layout.count.size
    count = min(layout.count.unpack_from(stored)[0], (len(stored) - first) // size) if len(stored) >= first else 0
    if any(tag == _NDPI_FORMAT for tag, *_ in layout.entry.iter_unpack(stored[first : first + count * size])):
        raise _ndpi(found.uri)


async def _walked(storage: Storage, found: StoredObject, layout: Layout, place: int, seen: set[int]) -> tuple[list[Entry], int]:
    """The checked entries of a directory, and where the next one is."""
    if place in seen:
        raise _damaged(found.uri, "directories form a circle")
    seen.add(place)
    stored = await _read(storage, found, place, _CHUNK_BYTES)
    if len(stored) < layout.count.size:
        raise _damaged(found.uri, "directory points past its end")
    (count,) = layout.count.unpack_from(stored)
    end = layout.count.size + count * layout.entry.size
    if end + layout.offset.size > min(found.size_bytes - place, _LARGEST_BYTES):
        raise _damaged(found.uri, "directory points past its end")
    if end + layout.offset.size > len(stored):
        stored = await _read(storage, found, place, end + layout.offset.size)
    entries = [
        Entry(tag=tag, kind=kind, count=number, inline=value)
        for tag, kind, number, value in layout.entry.iter_unpack(stored[layout.count.size : end])
    ]
    _check(found, layout, entries)
    (following,) = layout.offset.unpack_from(stored, end)
    return entries, following


async def _read(storage: Storage, found: StoredObject, start: int, length: int) -> bytes:
    length = min(length, found.size_bytes - start)
    return await storage.read_range(found, start, length) if length > 0 else b""


async def _values(storage: Storage, found: StoredObject, layout: Layout, entries: Sequence[Entry], *, held: int) -> Directory:
    """Entries that are handed over, with their values. `held`: bytes of those of other directories."""
    # The first of a tag that is there twice, as libtiff does, so that async-tiff takes no other.
    first = {entry.tag: entry for entry in reversed(entries)}
    kept = [first[tag] for tag in sorted(first) if tag in _KEPT or tag in (_TILE_OFFSETS, _SUB_DIRECTORIES)]
    apart = [entry for entry in kept if entry.size > len(entry.inline)]
    starts = [layout.offset.unpack(entry.inline)[0] for entry in apart]
    ends = [start + entry.size for start, entry in zip(starts, apart, strict=True)]
    if held + sum(entry.size for entry in kept) > _LARGEST_VALUES_BYTES:
        raise InvalidSlide(f"{found.uri} has more than {_LARGEST_VALUES_BYTES:,} bytes in its directories. Export it with larger tiles.")
    if sum(entry.size for entry in kept if entry.tag in _TEXTS) > _LARGEST_TEXTS_BYTES:
        raise InvalidSlide(
            f"{found.uri} has more than {_LARGEST_TEXTS_BYTES:,} bytes of texts and profiles in one directory. Export it without them."
        )
    if max(ends, default=0) > found.size_bytes:
        raise _damaged(found.uri, "directory points past its end")
    read = iter(await storage.read_ranges(found, starts, ends)) if apart else iter(())
    return [(entry, bytes(next(read)) if entry.size > len(entry.inline) else entry.inline[: entry.size]) for entry in kept]


def _size(directory: Directory) -> int:
    return sum(len(value) for _, value in directory)


def _below(layout: Layout, directory: Directory) -> list[int]:
    """Where directories below this one lie."""
    return [int(place) for place in whole_numbers(layout, directory, _SUB_DIRECTORIES)]


def _written(order: str, directories: Sequence[Directory], places: Sequence[Places]) -> bytes:
    """A BigTIFF of directories, whose tiles are not in it."""
    layout = Layout.of(order, big=True)
    file = bytearray((b"II" if order == "<" else b"MM") + struct.pack(f"{order}HHHQ", 43, 8, 0, 0))
    link = layout.first
    for directory, told in zip(directories, places, strict=True):
        entries = []
        is_told = len(told.offsets) and not told.of_pictures
        left_out = {_SUB_DIRECTORIES} if is_told else {_SUB_DIRECTORIES, _TILE_OFFSETS, _TILE_BYTE_COUNTS}
        # async-tiff tells of no unit then, which means inches.
        if whole_number(layout, directory, _RESOLUTION_UNIT) > _CENTIMETRE:
            left_out |= {*_RESOLUTIONS}
        for entry, value in directory:
            if entry.tag in left_out:
                continue
            kind, count = entry.kind, entry.count
            if entry.tag == _TILE_OFFSETS:
                kind, count, value = _LONG8, len(told.offsets), (told.offsets + np.uint64(SHIFT)).astype(f"{order}u8").tobytes()
            if len(value) > layout.offset.size:
                value, stored = layout.offset.pack(len(file)), value
                file += stored
            entries.append(layout.entry.pack(entry.tag, kind, count, value.ljust(layout.offset.size, b"\x00")))
        layout.offset.pack_into(file, link, len(file))
        file += layout.count.pack(len(entries)) + b"".join(entries)
        link = len(file)
        file += layout.offset.pack(0)
    return bytes(file)


def _check(found: StoredObject, layout: Layout, entries: Sequence[Entry]) -> None:
    tags = set()
    sides = [entry for entry in entries if entry.tag in (_TILE_WIDTH, _TILE_HEIGHT) and entry.kind in WIDTHS]
    inline = [(entry, entry.inline[: entry.size]) for entry in sides if 0 < entry.size <= len(entry.inline)]
    # OpenSlide asks for the memory of a tile before it looks what is in it, and ends the process where there is none.
    if whole_number(layout, inline, _TILE_WIDTH) * whole_number(layout, inline, _TILE_HEIGHT) > _LARGEST_TILE_PIXELS:
        raise InvalidSlide(
            f"{found.uri} tells of tiles with more than {_LARGEST_TILE_PIXELS:,} px: it is damaged, or stored as one tile. "
            "Copy or upload it again, whole, or export it with tiles of 256 × 256 or 512 × 512.",
            limit="tile_pixels",
        )
    for entry in entries:
        tags.add(entry.tag)
        if entry.count * WIDTHS.get(entry.kind, 1) > found.size_bytes:
            raise _damaged(found.uri, "directory points past its end")
        if entry.tag == _NDPI_FORMAT:
            raise _ndpi(found.uri)
        if _is_odd(layout, entry):
            raise NotThisReader(f"{found.uri} is a TIFF whose tag {entry.tag} is stored in a way that TIFF does not know")
    if missing := sorted(_NEEDED - tags):
        raise NotThisReader(f"{found.uri} is a TIFF with a directory that lacks the tag {missing[0]}")


def _is_odd(layout: Layout, entry: Entry) -> bool:
    tag, kind, count, value = entry.tag, entry.kind, entry.count, entry.inline
    if kind not in WIDTHS or tag == _GEO_KEYS:
        return True
    if tag in _RESOLUTIONS:
        return (kind, count) != (_RATIO, 1)
    if tag == _PHOTOMETRIC:
        return (kind, count) != (_SHORT, 1) or struct.unpack_from(f"{layout.order}H", value)[0] not in _KNOWN_PHOTOMETRICS
    return kind == _TEXT and 0 < count <= len(value) and (value[count - 1] != 0 or not value[:count].isascii())


def _ndpi(uri: str) -> NotThisReader:
    return NotThisReader(f"{uri} is a Hamamatsu NDPI")


def _damaged(uri: str, what: str) -> InvalidSlide:
    return InvalidSlide(f"{uri} begins as a TIFF, but its {what}: it is truncated or damaged. Copy or upload it again, whole.")
