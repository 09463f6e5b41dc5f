"""Tiled TIFF (Aperio SVS, generic, OME), read by range requests from disk or any object store.

With `tiles` alone in importing async-tiff.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import async_tiff
import numpy as np
from async_tiff.enums import ResolutionUnit

from inference_server.errors import InvalidSlide, Unavailable
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides import resolution
from inference_server.tasks.slides.readers import ome
from inference_server.tasks.slides.readers.ahead import ReadAhead
from inference_server.tasks.slides.readers.pictures import is_subsampled
from inference_server.tasks.slides.readers.port import NotThisReader
from inference_server.tasks.slides.readers.regions import WHITE
from inference_server.tasks.slides.readers.stacks import refuse_stacks
from inference_server.tasks.slides.readers.tiff_checks import check_bounds, check_decodable, check_places
from inference_server.tasks.slides.readers.tiff_directories import alike, levels_of, refuse_other_formats, refuse_without_tiles
from inference_server.tasks.slides.readers.tiff_headers import ICC_PROFILE, Places, read_headers
from inference_server.tasks.slides.readers.tiles import PANICS, Ranges, StoredLevel
from inference_server.tasks.slides.values import Level, Pixels, Position, SlideFacts, SlideLimits
from inference_server.threads import on_core, read_and_compute

_UNIT_MICROMETRES = {ResolutionUnit.Inch: resolution.INCH, ResolutionUnit.Centimeter: resolution.CENTIMETRE}


class TiffReader:
    """Reads what is stored in tiles; `open` says so when another reader must."""

    def __init__(self, *, facts: SlideFacts, levels: Sequence[StoredLevel], ranges: Ranges) -> None:
        """Use `open`."""
        self._facts = facts
        self._levels = levels
        self._ranges = ranges
        self._ahead = ReadAhead(self.fetch, self._size)

    @classmethod
    async def open(cls, storage: Storage, found: StoredObject, head: bytes, limits: SlideLimits) -> TiffReader:
        """Read the headers only; `head`: the first bytes. Raises `NotThisReader`, and `InvalidSlide` for a damaged or too large file."""
        headers = await read_headers(storage, found, head)
        ranges = Ranges(storage, found, headers.file)
        with _translated(found.uri):
            tiff = await async_tiff.TIFF.open(found.key, store=ranges, prefetch=len(headers.file))
            directories = list(tiff.ifds)
        del tiff
        ranges.forget_headers()
        await on_core(refuse_other_formats, found.uri, directories)
        base = directories[0]
        size = base.image_width, base.image_height
        told = await on_core(ome.image_told, base.image_description or "", Path(found.key).name, size)
        try:
            reader = await on_core(cls._from_directories, found, directories, headers.places, limits, ranges, told.pixels)
            await reader._check_planes(storage, found)
        except NotThisReader as error:
            if headers.comes_first:
                raise
            raise InvalidSlide(
                f"{error}; and its slide comes after other images, of which other readers take the first. Export it alone."
            ) from error
        return reader

    @classmethod
    def _from_directories(
        cls, found: StoredObject, directories: list[Any], places: Sequence[Places], limits: SlideLimits, ranges: Ranges, told: str
    ) -> TiffReader:
        refuse_without_tiles(found.uri, directories[0])
        base = directories[0]
        refuse_stacks(found.uri, base.image_description or "", alike=alike(directories), samples=base.samples_per_pixel, told=told)
        check_bounds(found.uri, directories[0], limits)
        if not places[0].byte_counts.any():
            raise InvalidSlide(
                f"{found.uri} has none of its tiles: its writer did not finish, or has not yet. Copy or export it again, whole."
            )
        pyramid = list(levels_of(directories))
        for number in pyramid:
            check_bounds(found.uri, directories[number], limits)
            check_decodable(found.uri, directories[number])
        for number in pyramid:
            check_places(found, directories[number], places[number])
        aperio = _is_aperio(directories[0])
        levels = [StoredLevel.of(directories[number], places[number], aperio=aperio) for number in pyramid]
        return cls(facts=_facts(found.uri, [directories[number] for number in pyramid], told), levels=levels, ranges=ranges)

    @property
    def facts(self) -> SlideFacts:
        """What the slide is."""
        return self._facts

    async def read_tiles(self, level: int, places: Sequence[Position], soon: Sequence[Position] = ()) -> list[Pixels | None]:
        """Fetch compressed tiles by coalesced range requests, or from disk, and decode them in a thread."""
        stored, shape = self._levels[level], self._facts.levels[level]
        scanned = [place for place in places if self._size(level, place)]

        def decode(fetched: Sequence[Any], *, room: int = 0) -> list[Pixels | None]:
            decoded = stored.decode(fetched, shape, room=room)
            if len(scanned) == len(places):
                return decoded
            tiles, white = dict(zip(scanned, decoded, strict=True)), np.full((shape.tile_height, shape.tile_width, 3), WHITE, np.uint8)
            return [tiles.get(place, white) for place in places]

        if self._ranges.on_disk and stored.is_pictures:
            # Not by the thread that decodes: there are as many as cores, and a mount that hangs would hold them all.
            read = partial(self._ranges.read_here, *self._ends(level, scanned), room=stored.room)
            return await read_and_compute(read, partial(decode, room=stored.room))
        return await on_core(decode, await self._ahead.read(level, scanned, soon if stored.is_pictures else ()))

    async def _check_planes(self, storage: Storage, found: StoredObject) -> None:
        """Raise `NotThisReader` for JPEG 2000 whose colours have fewer pixels, which Pillow does not read."""
        place = self._levels[0].first_jpeg2000()
        if place and is_subsampled(await storage.read_range(found, *place)):
            raise NotThisReader(f"{found.uri} is JPEG 2000 with planes of several sizes")

    async def fetch(self, level: int, places: Sequence[Position]) -> list[Any]:
        """Tiles as they are stored: the bytes of pictures, others in async-tiff's wrapping. Raises `Unavailable`."""
        if not places:
            return []
        stored = self._levels[level]
        if stored.is_pictures:
            return list(await self._ranges.read(*self._ends(level, places)))
        try:
            return list(await stored.directory.fetch_tiles(list(places)))
        except Exception as error:  # async-tiff hides what its input raised
            raise self._ranges.failure or Unavailable(f"{self._facts.uri} could not be read; try again.") from error

    def _size(self, level: int, place: Position) -> int:
        """Bytes of a tile as it is stored; 0 for one that was never scanned."""
        return int(self._levels[level].byte_counts[place[1] * self._facts.levels[level].columns + place[0]])

    def _ends(self, level: int, places: Sequence[Position]) -> tuple[list[int], list[int]]:
        columns = self._facts.levels[level].columns
        return self._levels[level].places([row * columns + column for column, row in places])

    def stored(self, level: int) -> StoredLevel:
        """How a level is stored."""
        return self._levels[level]

    async def close(self) -> None:
        """Nothing is held open between reads."""


def _profile(directory: Any) -> bytes:
    value = directory.other_tags.get(ICC_PROFILE, b"")
    return bytes(value) if isinstance(value, (list, bytes)) else b""


def _is_aperio(base: Any) -> bool:
    return str(base.image_description or "").startswith("Aperio")


def _facts(uri: str, pyramid: list[Any], told: str) -> SlideFacts:
    base = pyramid[0]
    description = base.image_description or ""
    aperio = _is_aperio(base)
    mpp_x, mpp_y = _resolution(base, description, told, aperio=aperio)
    return SlideFacts(
        uri=uri,
        vendor="aperio" if aperio else "generic-tiff",
        reader="tiff",
        levels=tuple(
            Level(
                width=directory.image_width,
                height=directory.image_height,
                downsample_x=resolution.ratio(base.image_width, directory.image_width),
                downsample_y=resolution.ratio(base.image_height, directory.image_height),
                tile_width=directory.tile_width,
                tile_height=directory.tile_height,
            )
            for directory in pyramid
        ),
        mpp_x=mpp_x,
        mpp_y=mpp_y,
        objective_power=resolution.from_aperio(description, "AppMag") if aperio else None,
        icc_profile=_profile(base),
    )


def _resolution(base: Any, description: str, told: str, *, aperio: bool) -> tuple[float | None, float | None]:
    # TIFF 6.0: inches, where no unit is told.
    unit = _UNIT_MICROMETRES.get(base.resolution_unit or ResolutionUnit.Inch)
    tagged = resolution.sane_pair(resolution.from_density(base.x_resolution, unit), resolution.from_density(base.y_resolution, unit))
    if aperio:
        # As OpenSlide does: Aperio's resolution tags hold no scanner resolution.
        mpp = resolution.from_aperio(description, "MPP")
        return resolution.sane_pair(mpp, mpp)
    own = resolution.sane_pair(*resolution.from_ome(told))
    if own[0] is not None:
        return own
    return resolution.from_imagej(description, base.x_resolution, base.y_resolution, unit) or tagged


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # async-tiff's errors and panics share no public class
        if type(error).__name__ in PANICS:  # it lacks a tag that TIFF lets be missing, or is damaged: another reader knows
            raise NotThisReader(f"{uri} is a TIFF with directories that cannot be read") from error
        raise InvalidSlide(
            f"{uri} begins as a TIFF, but its directory cannot be read: it is truncated or damaged. Copy or upload it again, whole."
        ) from error
