"""Tiled TIFF (Aperio SVS, generic, OME), read by range requests from disk or any object store.

With `tiles` alone in importing async-tiff.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import async_tiff
import numpy as np
from async_tiff.enums import PhotometricInterpretation, PlanarConfiguration, Predictor, ResolutionUnit, SampleFormat

from inference_server.errors import InvalidSlide, Unavailable
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides import resolution
from inference_server.tasks.slides.readers import ome
from inference_server.tasks.slides.readers.ahead import ReadAhead
from inference_server.tasks.slides.readers.port import NotThisReader
from inference_server.tasks.slides.readers.regions import WHITE
from inference_server.tasks.slides.readers.tiff_directories import channels_apart, levels_of, refuse_other_formats, refuse_without_tiles
from inference_server.tasks.slides.readers.tiff_headers import FILL_ORDER, ICC_PROFILE, JPEG2000, SHIFT, Places, read_headers
from inference_server.tasks.slides.readers.tiles import CODED, DECODED, PANICS, Ranges, StoredLevel, is_subsampled
from inference_server.tasks.slides.values import Level, Pixels, Position, SlideFacts, SlideLimits
from inference_server.threads import on_core, on_disk

_GREYS = {PhotometricInterpretation.BlackIsZero, PhotometricInterpretation.WhiteIsZero}
_COLOURS = frozenset({PhotometricInterpretation.RGB, PhotometricInterpretation.YCbCr, *_GREYS})
# For messages (TIFF 6.0, PhotometricInterpretation).
_PHOTOMETRICS = {0: "grey", 1: "grey", 2: "RGB", 3: "a palette", 4: "a mask", 5: "CMYK", 6: "YCbCr", 8: "CIE L*a*b*"}
# The first pixel of a byte in its lowest bit: nothing but libtiff turns them round.
_LOWEST_FIRST = 2
_UNIT_MICROMETRES = {ResolutionUnit.Inch: 25400.0, ResolutionUnit.Centimeter: 10000.0}


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
        _check_channels(found.uri, directories, told)
        _check_bounds(found.uri, directories[0], limits)
        if not places[0].byte_counts.any():
            raise InvalidSlide(
                f"{found.uri} has none of its tiles: its writer did not finish, or has not yet. Copy or export it again, whole."
            )
        pyramid = list(levels_of(directories))
        for number in pyramid:
            _check_bounds(found.uri, directories[number], limits)
            _check_decodable(found.uri, directories[number])
        for number in pyramid:
            _check_places(found, directories[number], places[number])
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
        is_here = self._ranges.on_disk and stored.is_pictures
        room = stored.room if is_here else 0
        if is_here:
            # Not by the thread that decodes: there are as many as cores, and a mount that hangs would hold them all.
            fetched = await on_disk(self._ranges.read_here, *self._ends(level, scanned), room=room)
        else:
            fetched = await self._ahead.read(level, scanned, soon if stored.is_pictures else ())

        def decode() -> list[Pixels | None]:
            decoded = stored.decode(fetched, shape, room=room)
            if len(scanned) == len(places):
                return decoded
            tiles, white = dict(zip(scanned, decoded, strict=True)), np.full((shape.tile_height, shape.tile_width, 3), WHITE, np.uint8)
            return [tiles.get(place, white) for place in places]

        return await on_core(decode)

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


def _check_bounds(uri: str, directory: Any, limits: SlideLimits) -> None:
    width, height = directory.image_width, directory.image_height
    if width < 1 or height < 1:
        raise InvalidSlide(f"{uri} says that it has {width} × {height} px; it is damaged. Copy or export it again.")
    if width * height > limits.most_slide_pixels:
        raise InvalidSlide(
            f"{uri} has {width} × {height} px; at most {limits.most_slide_pixels:,} px are accepted. Crop it.", limit="slide_pixels"
        )
    tile_pixels = directory.tile_width * directory.tile_height
    if not 0 < tile_pixels <= limits.most_tile_pixels:
        raise InvalidSlide(
            f"{uri} is stored in tiles of {directory.tile_width} × {directory.tile_height} px; "
            f"at most {limits.most_tile_pixels:,} px a tile "
            "are accepted. Export it with tiles of 256 × 256 or 512 × 512.",
            limit="tile_pixels" if tile_pixels > 0 else "",
        )


def _check_channels(uri: str, directories: list[Any], told: str) -> None:
    """Colours that are kept as separate images would be read as grey. `told`: of the image's pixels, by OME."""
    base = directories[0]
    channels = ome.channels(told) if told else channels_apart(directories)
    if channels > base.samples_per_pixel:
        raise InvalidSlide(
            f"{uri} keeps its {channels} channels as separate images; expected the colours of a pixel together. Export it again as RGB."
        )


def _check_decodable(uri: str, directory: Any) -> None:
    samples, photometric = directory.samples_per_pixel, directory.photometric_interpretation
    is_signed = SampleFormat.Int in (directory.sample_format or ())
    is_known = samples in (1, 3, 4) and photometric in _COLOURS and (samples == 1 or photometric not in _GREYS)
    if set(directory.bits_per_sample) != {8} or is_signed or not is_known:
        raise InvalidSlide(
            f"{uri} has {samples} samples of {list(directory.bits_per_sample)} bits{' with a sign' * is_signed}, photometric "
            f"{int(photometric)} ({_PHOTOMETRICS.get(int(photometric), 'unknown')}); "
            "expected 8-bit RGB, YCbCr or grey. Export it again as 8-bit RGB."
        )
    is_coded, is_planar = directory.compression in CODED, directory.planar_configuration == PlanarConfiguration.Planar
    # As Bio-Formats writes them: R, G, B, of which it says that they are Y, Cb, Cr. OpenSlide and libvips read neither.
    if is_planar and is_coded and (directory.compression in JPEG2000 or photometric == PhotometricInterpretation.YCbCr):
        raise InvalidSlide(
            f"{uri} keeps its colours apart, each compressed by method {int(directory.compression)} as a picture of its own; "
            "expected the colours of a pixel together. Export it again as interleaved RGB, or by another method such as LZW."
        )
    if directory.compression not in DECODED:
        raise NotThisReader(f"{uri} is compressed by method {int(directory.compression)}")
    if photometric == PhotometricInterpretation.YCbCr and not is_coded:
        raise NotThisReader(f"{uri} has brightness and colour apart, and neither JPEG nor JPEG 2000 that tells how")
    is_predicted = directory.predictor not in (None, Predictor.Unknown)
    if is_planar and (is_coded or is_predicted):
        raise NotThisReader(f"{uri} keeps its colours apart, each compressed in a way that only colours together are read in")
    if not is_coded and directory.other_tags.get(FILL_ORDER) == _LOWEST_FIRST:
        raise NotThisReader(f"{uri} has the bits of its bytes in the order that few programs write")


def _check_places(found: StoredObject, directory: Any, places: Places) -> None:
    """Raise `InvalidSlide` where a tile is missing or reaches past the file's end."""
    across, down = directory.tile_count
    needed = across * down * (directory.samples_per_pixel if directory.planar_configuration == PlanarConfiguration.Planar else 1)
    if places.offsets.max(initial=0) >= SHIFT:
        raise InvalidSlide(f"{found.uri} is damaged: it has a tile that lies far past its end. Copy or upload it again, whole.")
    size, starts, counts = found.size_bytes, places.offsets, places.byte_counts
    # Each by itself first: sums of what is larger may go past 64 bits.
    is_within = max(starts.max(initial=0), counts.max(initial=0)) <= size and (starts + counts).max(initial=0) <= size
    if len(starts) < needed:
        raise InvalidSlide(
            f"{found.uri} is damaged: it consists of {needed:,} tiles by its size, and tells where {len(starts):,} of them lie. "
            "Copy or export it again."
        )
    if not is_within:
        end = max((start + count for start, count in zip(starts.tolist(), counts.tolist(), strict=True)), default=0)
        raise InvalidSlide(
            f"{found.uri} is truncated: it has {size:,} bytes, and its {needed} tiles end at {end:,}. Copy or upload it again, whole."
        )


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
    return own if own[0] is not None else tagged


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
