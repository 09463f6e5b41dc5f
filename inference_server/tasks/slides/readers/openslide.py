"""Whatever OpenSlide reads, from local disk: NDPI, MRXS, SCN, BIF, Philips, CZI, DICOM and more. Alone in importing openslide."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from inference_server.errors import InvalidSlide, Unavailable
from inference_server.tasks.slides import resolution
from inference_server.tasks.slides.readers.port import CONVERT, RECODE, NotThisReader
from inference_server.tasks.slides.values import Level, Pixels, Position, SlideFacts, SlideLimits
from inference_server.threads import in_thread

# Read at once where the file does not say how it is stored, or is stored in small tiles.
_BLOCK = 512
# How OpenSlide begins to say that a sound file is not for it.
_UNSUPPORTED = "Unsupported"
_BY_NUMBER = "TIFF compression: "
# Compressions of TIFF that it tells by number, and whose they are.
_COMPRESSIONS = {
    "22610": "JPEG XR",
    "33003": "JPEG 2000",
    "34712": "JPEG 2000",
    "34887": "LERC",
    "34926": "an early Zstandard",
    "34927": "an early WebP",
    "34933": "PNG",
    "34934": "JPEG XR",
    "50001": "WebP with its colours apart",
    "50002": "JPEG XL",
    "52546": "JPEG XL",
}
# Whose places OpenSlide cuts to whole pixels of a level; of others it moves pictures by parts of one.
_CUTS_PLACES = "leica"


class OpenSlideReader:
    """Reads one local slide through OpenSlide in blocks of whole stored tiles."""

    def __init__(self, *, facts: SlideFacts, path: Path, slide: openslide.OpenSlide) -> None:
        """Use `open`."""
        self._facts = facts
        # By which it divides places on level 0, whatever was meant.
        self._divisors = slide.level_downsamples
        self._whole = math.ceil if facts.vendor == _CUTS_PLACES else round
        self._handles = _Handles(facts.uri, path, slide)

    @classmethod
    async def open(cls, uri: str, path: Path, limits: SlideLimits) -> OpenSlideReader:
        """Read the headers. Raises `NotThisReader` when OpenSlide knows no such format, `InvalidSlide` when the file is damaged."""
        return await in_thread(cls._open, uri, path, limits)

    @classmethod
    def _open(cls, uri: str, path: Path, limits: SlideLimits) -> OpenSlideReader:
        try:
            if openslide.OpenSlide.detect_format(path) is None:
                raise NotThisReader(f"{uri} is of no format that OpenSlide knows")
            slide = openslide.OpenSlide(path)
            facts = _facts(uri, slide)
        except (openslide.OpenSlideError, OSError, ValueError) as error:
            if _UNSUPPORTED in str(error):
                raise InvalidSlide(f"{uri} is stored in a way that cannot be read ({_reason(error, path)}). {_remedy(error)}") from error
            raise InvalidSlide(
                f"{uri} cannot be opened: it is truncated or damaged, or lacks what OpenSlide needs ({_reason(error, path)}). "
                "Copy or upload it again, whole; if other programs open it, export it anew with one of them."
            ) from error
        try:
            _check_bounds(facts, slide.properties, limits)
        except InvalidSlide:
            slide.close()
            raise
        return cls(facts=facts, path=path, slide=slide)

    @property
    def facts(self) -> SlideFacts:
        """What the slide is."""
        return self._facts

    async def read_tiles(self, level: int, places: Sequence[Position], soon: Sequence[Position] = ()) -> list[Pixels | None]:
        """Read blocks in a thread, one after the other."""
        return await in_thread(lambda: [self._read(level, column, row) for column, row in places])

    async def close(self) -> None:
        """Close the file, as soon as no thread reads it any more."""
        await in_thread(self._handles.close)

    def _read(self, level: int, column: int, row: int) -> Pixels | None:
        stored = self._facts.levels[level]
        divisor = self._divisors[level]
        origin = (self._whole(column * stored.tile_width * divisor), self._whole(row * stored.tile_height * divisor))
        region = self._handles.read(origin, level, (stored.tile_width, stored.tile_height))
        return None if region is None else _on_white(region)


class _Handle:
    """One handle on the file, and how many threads are reading from it."""

    def __init__(self, slide: openslide.OpenSlide) -> None:
        self.slide = slide
        self.users = 0


class _Handles:
    """Handles on one file, for many threads. After its first error a handle refuses everything, so it is replaced by a fresh one.

    None is closed while a thread reads from it: OpenSlide would end the process.
    """

    def __init__(self, uri: str, path: Path, slide: openslide.OpenSlide) -> None:
        self._uri = uri
        self._path = path
        self._lock = threading.Lock()
        # What the next read uses; None until it is opened again.
        self._current: _Handle | None = _Handle(slide)
        self._closed = False

    def read(self, origin: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image | None:
        """A region, or None when it cannot be decoded; blocks. Raises `Unavailable` when the file can no longer be opened."""
        handle = self._taken()
        try:
            return handle.slide.read_region(origin, level, size)
        except (openslide.OpenSlideError, OSError):
            self._retire(handle)
        finally:
            self._let_go(handle)
        # The error may be that of another region: only a handle that nobody else uses tells of this one.
        fresh = self._opened()
        try:
            region = fresh.slide.read_region(origin, level, size)
        except (openslide.OpenSlideError, OSError):
            fresh.slide.close()
            return None
        self._keep(fresh)
        return region

    def close(self) -> None:
        """Open none any more, and close the last one when its readers have left."""
        with self._lock:
            self._closed = True
            handle, self._current = self._current, None
            if handle is not None and handle.users == 0:
                handle.slide.close()

    def _taken(self) -> _Handle:
        with self._lock:
            if self._current is None:
                self._current = self._opened()
            self._current.users += 1
            return self._current

    def _opened(self) -> _Handle:
        if self._closed:
            raise Unavailable(f"{self._uri} was closed while it was read; try again.")
        try:
            return _Handle(openslide.OpenSlide(self._path))
        except (openslide.OpenSlideError, OSError) as error:
            raise Unavailable(f"{self._uri} could not be opened again while it was read; try again.") from error

    def _retire(self, handle: _Handle) -> None:
        with self._lock:
            if self._current is handle:
                self._current = None

    def _let_go(self, handle: _Handle) -> None:
        with self._lock:
            handle.users -= 1
            if handle.users == 0 and self._current is not handle:
                handle.slide.close()

    def _keep(self, fresh: _Handle) -> None:
        """Have the next reads use it, unless another thread was faster."""
        with self._lock:
            if self._current is None and not self._closed:
                self._current = fresh
                return
        fresh.slide.close()


def _on_white(region: Image.Image) -> Pixels:
    # OpenSlide gives straight alpha; what was never scanned has none.
    pixels = np.asarray(region)
    opacity = pixels[..., 3:]
    if opacity.min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    wide = opacity.astype(np.uint16)
    return ((pixels[..., :3] * wide + 255 * (255 - wide) + 127) // 255).astype(np.uint8)


def _facts(uri: str, slide: openslide.OpenSlide) -> SlideFacts:
    width, height = slide.dimensions
    properties = slide.properties
    mpp_x, mpp_y = resolution.sane_pair(
        _number(properties, openslide.PROPERTY_NAME_MPP_X), _number(properties, openslide.PROPERTY_NAME_MPP_Y)
    )
    levels = tuple(
        Level(
            width=level_width,
            height=level_height,
            downsample_x=_meant(divisor, width, level_width),
            downsample_y=_meant(divisor, height, level_height),
            tile_width=_block(properties, index, "width"),
            tile_height=_block(properties, index, "height"),
        )
        for index, ((level_width, level_height), divisor) in enumerate(zip(slide.level_dimensions, slide.level_downsamples, strict=True))
    )
    return SlideFacts(
        uri=uri,
        vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, ""),
        reader="openslide",
        levels=levels,
        mpp_x=mpp_x,
        mpp_y=mpp_y,
        objective_power=_number(properties, openslide.PROPERTY_NAME_OBJECTIVE_POWER),
        bounds_x=int(_number(properties, openslide.PROPERTY_NAME_BOUNDS_X) or 0),
        bounds_y=int(_number(properties, openslide.PROPERTY_NAME_BOUNDS_Y) or 0),
        icc_profile=slide.color_profile.tobytes() if slide.color_profile else b"",
    )


def _check_bounds(facts: SlideFacts, properties: Mapping[str, str], limits: SlideLimits) -> None:
    """Raise `InvalidSlide` for a slide that is too large, or stored in tiles for which OpenSlide finds no memory: that ends the process."""
    if facts.width * facts.height > limits.most_slide_pixels:
        raise InvalidSlide(
            f"{facts.uri} has {facts.width} × {facts.height} px; at most {limits.most_slide_pixels:,} px are accepted. Crop it.",
            limit="slide_pixels",
        )
    for number, level in enumerate(facts.levels):
        width, height = (_number(properties, f"openslide.level[{number}].tile-{side}") or 0 for side in ("width", "height"))
        # Hamamatsu's small levels may be one picture, which is decoded whole.
        is_whole = (width, height) == (level.width, level.height)
        if width * height > max(limits.most_tile_pixels, is_whole * limits.most_image_pixels):
            raise InvalidSlide(
                f"{facts.uri} says that it is stored in tiles of {width:.0f} × {height:.0f} px; "
                f"at most {limits.most_tile_pixels:,} px a tile are accepted. It is damaged, or must be exported anew. {CONVERT}",
                limit="tile_pixels",
            )


def _meant(told: float, whole: int, part: int) -> float:
    """Level-0 pixels per pixel: a whole number that the file tells, where the sizes fit it; small levels fit several."""
    return told if told.is_integer() and abs(whole / told - part) < 1 else resolution.ratio(whole, part)


def _block(properties: Mapping[str, str], level: int, side: str) -> int:
    stored = int(properties.get(f"openslide.level[{level}].tile-{side}", _BLOCK))
    return max(_BLOCK // stored, 1) * stored if 16 <= stored <= 2 * _BLOCK else _BLOCK


def _number(properties: Mapping[str, str], name: str) -> float | None:
    try:
        return float(properties[name])
    except (KeyError, ValueError):
        return None


def _reason(error: Exception, path: Path) -> str:
    told = str(error).replace(f"{path.parent}/", "")
    name = _COMPRESSIONS.get(told.rpartition(_BY_NUMBER)[2])
    return f"{told}, {name}" if name else told


def _remedy(error: Exception) -> str:
    return RECODE if _BY_NUMBER in str(error) else "Export it anew with the program that wrote it, in JPEG or JPEG 2000."
