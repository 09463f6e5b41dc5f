"""The tiles of a TIFF: fetched by exact ranges, and decoded. Alone in importing simplejpeg."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import async_tiff
import numpy as np
import simplejpeg
from async_tiff.enums import Compression, PhotometricInterpretation, PlanarConfiguration
from numpy.typing import NDArray

from inference_server.errors import InferenceError
from inference_server.storage.storage import Storage
from inference_server.storage.stored import StoredObject
from inference_server.tasks.slides.readers.pictures import BEGINNING_BYTES, of_jpeg2000, of_webp, over_white
from inference_server.tasks.slides.readers.regions import WHITE
from inference_server.tasks.slides.readers.tiff_headers import JPEG2000, JPEG2000_YCBCR, SHIFT, WEBP, Places
from inference_server.tasks.slides.readers.unpacking import inflated, of_lzma, of_lzw, of_zstandard
from inference_server.tasks.slides.values import Level, Pixels

# Pictures of their own, with their own meaning of colours.
CODED = JPEG2000 | {Compression.ModernJPEG, WEBP}
_UNPACKED = {
    Compression.LZW: of_lzw,
    Compression.Deflate: inflated,
    Compression.OldDeflate: inflated,
    Compression.ZSTD: of_zstandard,
    Compression.LZMA: of_lzma,
}
DECODED = CODED | _UNPACKED.keys() | {Compression.Uncompressed}
# What a panic in Rust is raised as: in a call, and in what is awaited.
PANICS = frozenset({"PanicException", "RustPanic"})
# SOI, then an Adobe APP14 marker with its colour transform: none for R, G, B, and 1 for Y, Cb, Cr.
_SOI = b"\xff\xd8"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
_MEANINGS = {PhotometricInterpretation.RGB: _ADOBE + b"\x00", PhotometricInterpretation.YCbCr: _ADOBE + b"\x01"}
# Markers that applications put before a picture, and comments: of what they say only the meaning of components changes pixels.
_PASSED_OVER = frozenset(bytes((0xFF, kind)) for kind in (*range(0xE0, 0xF0), 0xFE))
# The fourth sample is an opacity by which the others were not multiplied (TIFF 6.0, ExtraSamples). What is not told is taken for one by
# which they were, as libtiff and OpenSlide do.
_STRAIGHT = 2
# Where a scan and the end begin, and libjpeg's warning of bytes that are left between the last of its pixels and the end.
_SOS, _EOI, _LEFT_OVER = b"\xff\xda", b"\xff\xd9", "extraneous bytes before marker 0xd9"


class Ranges:
    """What async-tiff reads from: the directories that `tiff_headers` brought together, and the tiles by exact ranges of the file."""

    def __init__(self, storage: Storage, found: StoredObject, headers: bytes) -> None:
        """`headers`: as `read_headers` wrote them."""
        self._storage = storage
        self._found = found
        self._headers = headers
        # What a read failed with; async-tiff does not pass it on. Reads that go on at the same time must not take it away.
        self.failure: InferenceError | None = None

    async def get_range_async(self, path: str, *, start: int, end: int | None = None, length: int | None = None) -> bytes:
        """Bytes of the directories."""
        return self._headers[start : start + length if length is not None else end]

    async def get_ranges_async(
        self, path: str, *, starts: Sequence[int], ends: Sequence[int] | None = None, lengths: Sequence[int] | None = None
    ) -> Sequence[memoryview]:
        """Bytes of tiles."""
        if ends is None:
            ends = [start + length for start, length in zip(starts, lengths or (), strict=True)]
        try:
            return await self._storage.read_ranges(self._found, [start - SHIFT for start in starts], [end - SHIFT for end in ends])
        except InferenceError as error:
            self.failure = error
            raise

    def forget_headers(self) -> None:
        """Hold them no longer, when async-tiff has the directories."""
        self._headers = b""

    @property
    def on_disk(self) -> bool:
        """Whether `read_here` can read the tiles."""
        return self._found.local_path is not None

    async def read(self, starts: Sequence[int], ends: Sequence[int]) -> Sequence[memoryview]:
        """Bytes between places of the file. Raises `Unavailable`."""
        return await self._storage.read_ranges(self._found, starts, ends)

    def read_here(self, starts: Sequence[int], ends: Sequence[int], *, room: int) -> Sequence[memoryview]:
        """As `read`, of a file on disk, each with `room` bytes before it; blocks."""
        return self._storage.read_ranges_here(self._found, starts, ends, room=room)


@dataclass(frozen=True, kw_only=True)
class StoredLevel:
    """One level as it is stored."""

    # async-tiff's.
    directory: Any
    compression: int
    photometric: PhotometricInterpretation
    # JPEG tables that the level's tiles share, without SOI and EOI.
    tables: bytes
    # Whether JPEG 2000 is of Y, Cb, Cr whatever the photometric says: Aperio's. Others (Bio-Formats, tifffile) use the same number for any.
    aperio: bool
    # Whether each tile is a picture of its own, which is decoded from its bytes alone: then async-tiff need not fetch it.
    is_pictures: bool
    # By row and column: where a tile begins in the file, and its length; 0 for one that was never scanned.
    offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]

    @staticmethod
    def of(directory: Any, places: Places, *, aperio: bool) -> StoredLevel:
        """What a directory says, and where its tiles lie. `aperio`: whether the slide says that it is Aperio's."""
        return StoredLevel(
            directory=directory,
            compression=int(directory.compression),
            photometric=directory.photometric_interpretation,
            tables=bytes(directory.jpeg_tables or b"")[2:-2],
            aperio=aperio,
            is_pictures=places.of_pictures,
            offsets=places.offsets.astype(np.int64),
            byte_counts=places.byte_counts.astype(np.int64),
        )

    def places(self, indices: Sequence[int]) -> tuple[list[int], list[int]]:
        """Where tiles begin and end in the file, by their number in reading order."""
        starts = self.offsets[list(indices)]
        return starts.tolist(), (starts + self.byte_counts[list(indices)]).tolist()

    def first_jpeg2000(self) -> tuple[int, int] | None:
        """Start and length of the beginning of the first tile in JPEG 2000; None where there is none."""
        scanned = np.flatnonzero(self.byte_counts)
        if self.compression not in JPEG2000 or not len(scanned):
            return None
        return int(self.offsets[scanned[0]]), int(min(self.byte_counts[scanned[0]], BEGINNING_BYTES))

    @property
    def room(self) -> int:
        """Bytes before a tile's own in which it becomes a picture of its own without being copied."""
        return len(self._beginning) - len(_SOI) if self.compression == Compression.ModernJPEG else 0

    def decode(self, tiles: Sequence[Any], shape: Level, *, room: int = 0) -> list[Pixels | None]:
        """The pixels of tiles, from their bytes or as async-tiff fetched them; None for one whose bytes are damaged. Blocks.

        `room`: 0, or the level's where the tiles are read with it.
        """
        size = shape.tile_height, shape.tile_width
        decoded = [_unless_damaged(self._decode, tile, size, room) for tile in tiles]
        whole = [pixels if pixels is not None and pixels.shape == (*size, 3) else None for pixels in decoded]
        if self.photometric == PhotometricInterpretation.WhiteIsZero:
            return [None if pixels is None else WHITE - pixels for pixels in whole]
        return whole

    def _decode(self, tile: Any, size: tuple[int, int], room: int) -> Pixels:
        if self.compression == Compression.ModernJPEG:
            data = self.as_jpeg(tile, room=room)
            # Its header only so far: a few bytes may claim any size.
            if simplejpeg.decode_jpeg_header(data)[:2] != size:
                raise ValueError("a tile of another size")
            return _jpeg(data)
        if self.compression in JPEG2000:
            is_apart = (self.aperio and self.compression == JPEG2000_YCBCR) or self.photometric == PhotometricInterpretation.YCbCr
            return of_jpeg2000(bytes(_bytes_of(tile)), size, is_apart=is_apart)
        if self.compression == WEBP:
            return of_webp(bytes(_bytes_of(tile)), size, is_straight=self._is_straight)
        return self._other(tile)

    def as_jpeg(self, tile: Any, *, room: int = 0) -> bytes | memoryview:
        """A tile in JPEG as a file of its own: with the level's tables, and the meaning of its components as the TIFF says it.

        Where it was read with room, it is made there.
        """
        data = memoryview(_bytes_of(tile))
        start = room + len(_SOI)
        # JFIF would say Y, Cb, Cr louder than Adobe, and a later Adobe marker something else than ours.
        while bytes(data[start : start + 2]) in _PASSED_OVER:
            start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if not room:
            return b"".join((self._beginning, data[start:]))
        begun = start - len(self._beginning)
        data[begun:start] = self._beginning
        return data[begun:]

    @cached_property
    def _beginning(self) -> bytes:
        """Of each tile in JPEG: what stands before its own tables, frame and scans."""
        return b"".join((_SOI, _MEANINGS.get(self.photometric, b""), self.tables))

    @property
    def _is_straight(self) -> bool:
        return _STRAIGHT in map(int, self.directory.extra_samples or ())

    @cached_property
    def _decoders(self) -> async_tiff.DecoderRegistry:
        """Those of async-tiff, and in the place of such as unpack without end ours."""
        samples = 1 if self.directory.planar_configuration == PlanarConfiguration.Planar else self.directory.samples_per_pixel
        size = self.directory.tile_width * self.directory.tile_height * samples
        ours: dict[Any, Any] = {compression: partial(unpack, size=size) for compression, unpack in _UNPACKED.items()}
        return async_tiff.DecoderRegistry(ours)

    def _other(self, tile: Any) -> Pixels:
        pixels = np.asarray(tile.decode_sync(decoder_registry=self._decoders))
        if self.directory.planar_configuration == PlanarConfiguration.Planar:
            pixels = np.moveaxis(pixels, 0, -1)
        if pixels.shape[-1] == 1:
            return np.repeat(pixels, 3, axis=-1)
        if pixels.shape[-1] == 4:
            return over_white(pixels, is_straight=self._is_straight)
        return np.ascontiguousarray(pixels)


def _unless_damaged(decode: Callable[..., Pixels], *given: Any) -> Pixels | None:
    """What a decoder makes of bytes; None where it says that they are damaged."""
    try:
        return decode(*given)
    except (TypeError, AttributeError, MemoryError):  # ours, not the file's
        raise
    except Exception:  # async-tiff's errors have no public class
        return None
    except BaseException as error:  # damaged bytes may make a Rust decoder panic, which is no `Exception`
        if type(error).__name__ in PANICS:
            return None
        raise


def _bytes_of(tile: Any) -> memoryview:
    """Those of a tile as it is stored, however it was fetched."""
    fetched: memoryview = getattr(tile, "compressed_bytes", tile)
    return fetched


def _jpeg(data: bytes | memoryview) -> Pixels:
    """Every warning is damage, but for that of bytes after the last pixel: libjpeg tells its first one, and OpenSlide reads no further.

    Nor does it miss an end then. Of several scans it does read to the end, because any of them may change pixels.
    """
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        ended = bytes(data) + _EOI
        if ended.count(_SOS) > 1 or _LEFT_OVER not in _warning(ended):
            raise
        pixels = simplejpeg.decode_jpeg(ended, colorspace="RGB", strict=False)
    return pixels


def _warning(data: bytes) -> str:
    """The first of a JPEG, or its error; empty where there is none."""
    try:
        simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        return str(error)
    return ""
