"""Whatever OpenSlide reads, from local disk: NDPI, MRXS, SCN, BIF, Philips, CZI, DICOM. Alone in importing openslide."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from inference_server.errors import InvalidSlide
from inference_server.tasks.slides import resolution
from inference_server.tasks.slides.readers.port import NotThisReader
from inference_server.tasks.slides.readers.tiff import ratio
from inference_server.tasks.slides.values import Level, Pixels, SlideFacts, SlideLimits

# Read at once where the file does not say how it is stored, or is stored in small tiles.
_BLOCK = 512


class OpenSlideReader:
    """Reads one local slide through OpenSlide in blocks of whole stored tiles."""

    def __init__(self, *, facts: SlideFacts, path: Path, slide: openslide.OpenSlide) -> None:
        """Use `open`."""
        self._facts = facts
        self._path = path
        self._slide = slide
        self._lock = threading.Lock()

    @classmethod
    async def open(cls, uri: str, path: Path, limits: SlideLimits) -> OpenSlideReader:
        """Read the headers. Raises `NotThisReader` when OpenSlide knows no such format, `InvalidSlide` when the file is damaged."""
        return await asyncio.to_thread(cls._open, uri, path, limits)

    @classmethod
    def _open(cls, uri: str, path: Path, limits: SlideLimits) -> OpenSlideReader:
        try:
            if openslide.OpenSlide.detect_format(path) is None:
                raise NotThisReader(f"{uri} is of no format that OpenSlide knows")
            slide = openslide.OpenSlide(path)
            facts = _facts(uri, slide)
        except (openslide.OpenSlideError, OSError, ValueError) as error:
            raise InvalidSlide(
                f"{uri} cannot be opened: it is truncated or damaged ({_reason(error, path)}). Copy or upload it again, whole."
            ) from error
        if facts.width * facts.height > limits.most_slide_pixels:
            slide.close()
            raise InvalidSlide(
                f"{uri} has {facts.width} × {facts.height} px; at most {limits.most_slide_pixels:,} px are accepted. Crop it.",
                limit="slide_pixels",
            )
        return cls(facts=facts, path=path, slide=slide)

    @property
    def facts(self) -> SlideFacts:
        """What the slide is."""
        return self._facts

    async def read_tiles(self, level: int, places: Sequence[tuple[int, int]]) -> list[Pixels | None]:
        """Read blocks in a thread, one after the other."""
        return await asyncio.to_thread(lambda: [self._read(level, column, row) for column, row in places])

    async def close(self) -> None:
        """Close the file."""
        await asyncio.to_thread(self._slide.close)

    def _read(self, level: int, column: int, row: int) -> Pixels | None:
        stored = self._facts.levels[level]
        x, y = column * stored.tile_width, row * stored.tile_height
        origin = (round(x * stored.downsample_x), round(y * stored.downsample_y))
        slide = self._slide
        try:
            return _on_white(slide.read_region(origin, level, (stored.tile_width, stored.tile_height)))
        except (openslide.OpenSlideError, OSError):
            self._open_again(slide)
            return None

    def _open_again(self, broken: openslide.OpenSlide) -> None:
        """After one error OpenSlide refuses everything."""
        with self._lock:
            if self._slide is broken:
                self._slide = openslide.OpenSlide(self._path)
                broken.close()


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
            downsample_x=ratio(width, level_width),
            downsample_y=ratio(height, level_height),
            tile_width=_block(properties, index, "width"),
            tile_height=_block(properties, index, "height"),
        )
        for index, (level_width, level_height) in enumerate(slide.level_dimensions)
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


def _block(properties: Mapping[str, str], level: int, side: str) -> int:
    stored = int(properties.get(f"openslide.level[{level}].tile-{side}", _BLOCK))
    return max(_BLOCK // stored, 1) * stored if 16 <= stored <= 2 * _BLOCK else _BLOCK


def _number(properties: Mapping[str, str], name: str) -> float | None:
    try:
        return float(properties[name])
    except (KeyError, ValueError):
        return None


def _reason(error: Exception, path: Path) -> str:
    return str(error).replace(str(path), path.name)
