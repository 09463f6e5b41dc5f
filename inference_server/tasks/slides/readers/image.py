"""Images without tiles (PNG, JPEG, striped TIFF): decoded whole under a limit of pixels, then served in blocks."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from inference_server.errors import InvalidSlide
from inference_server.tasks.slides import resolution
from inference_server.tasks.slides.readers.port import CONVERT
from inference_server.tasks.slides.readers.regions import WHITE
from inference_server.tasks.slides.values import Level, Pixels, SlideFacts, SlideLimits

_BLOCK = 512
_FORMATS = ("TIFF", "PNG", "JPEG")
_RESOLUTION_UNIT, _X_RESOLUTION, _Y_RESOLUTION = 296, 282, 283
_TIFF_UNIT_MICROMETRES = {2: 25400.0, 3: 10000.0}
_COLOUR_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "YCbCr"})


class ImageReader:
    """Serves blocks of pixels that lie in memory."""

    def __init__(self, *, facts: SlideFacts, pixels: Pixels) -> None:
        """`pixels`: rows × columns × RGB of the only level; `facts` as `facts_of` makes them."""
        self._facts = facts
        self._pixels = pixels

    @classmethod
    async def open(cls, uri: str, path: Path, limits: SlideLimits) -> ImageReader:
        """Decode the image. Raises `InvalidSlide` when it is no image, damaged, not of 8 bits, or larger than is decoded whole."""
        return await asyncio.to_thread(cls._open, uri, path, limits)

    @classmethod
    def _open(cls, uri: str, path: Path, limits: SlideLimits) -> ImageReader:
        pixels, mpp, profile = _decode(uri, path, limits.most_image_pixels, "image_pixels")
        return cls(facts=dataclasses.replace(facts_of(uri, pixels, mpp), icc_profile=profile), pixels=pixels)

    @property
    def facts(self) -> SlideFacts:
        """What the image is."""
        return self._facts

    async def read_tiles(self, level: int, places: Sequence[tuple[int, int]]) -> list[Pixels | None]:
        """Blocks of 512 × 512 px, white past the edge."""
        return [self._block(column * _BLOCK, row * _BLOCK) for column, row in places]

    async def close(self) -> None:
        """Let go of the pixels."""
        self._pixels = np.empty((0, 0, 3), np.uint8)

    def _block(self, x: int, y: int) -> Pixels:
        block = np.full((_BLOCK, _BLOCK, 3), WHITE, np.uint8)
        part = self._pixels[y : y + _BLOCK, x : x + _BLOCK]
        block[: part.shape[0], : part.shape[1]] = part
        return block


def facts_of(uri: str, pixels: Pixels, mpp: tuple[float | None, float | None]) -> SlideFacts:
    """The facts of an image of one level."""
    height, width, _ = pixels.shape
    level = Level(width=width, height=height, downsample_x=1.0, downsample_y=1.0, tile_width=_BLOCK, tile_height=_BLOCK)
    return SlideFacts(uri=uri, vendor="", reader="image", levels=(level,), mpp_x=mpp[0], mpp_y=mpp[1], objective_power=None)


def decode(name: str, content: bytes, *, most_pixels: int) -> Pixels:
    """Pixels of a PNG, JPEG or TIFF in memory; blocks. Raises `InvalidSlide`."""
    return _decode(name, io.BytesIO(content), most_pixels, "tile_pixels")[0]


def _decode(name: str, source: Path | io.BytesIO, most_pixels: int, limit: str) -> tuple[Pixels, tuple[float | None, float | None], bytes]:
    try:
        # `Image.open` reads headers only; its own bound on pixels is looser than ours.
        with warnings.catch_warnings(), Image.open(source, formats=_FORMATS) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            _check(name, image, most_pixels, limit)
            return np.ascontiguousarray(_on_white(image)), _resolution(image), image.info.get("icc_profile") or b""
    except Image.DecompressionBombError as error:
        raise InvalidSlide(_too_large(name, "far more ", most_pixels), limit=limit) from error
    except (OSError, SyntaxError, ValueError, TypeError, EOFError) as error:  # Pillow raises each of them for damaged files
        raise InvalidSlide(
            f"{name} cannot be decoded: it is truncated, damaged or of an unknown kind. Copy or upload it again, whole."
        ) from error


def _check(uri: str, image: Image.Image, most_pixels: int, limit: str) -> None:
    width, height = image.size
    if width * height > most_pixels:
        raise InvalidSlide(_too_large(uri, f"{width} × {height} ", most_pixels), limit=limit)
    if image.mode not in _COLOUR_MODES:
        raise InvalidSlide(f"{uri} has pixels of kind {image.mode}; expected 8-bit RGB or grey, as brightfield slides have.")


def _too_large(uri: str, size: str, most_pixels: int) -> str:
    limit = f"such an image must be decoded whole, and at most {most_pixels:,} px are"
    return f"{uri} is an image without tiles and has {size}px: {limit}. {CONVERT}"


def _on_white(image: Image.Image) -> Pixels:
    if image.mode in ("LA", "RGBA") or "transparency" in image.info:
        picture = image.convert("RGBA")
        canvas = Image.new("RGBA", picture.size, (WHITE, WHITE, WHITE, 255))
        return np.asarray(Image.alpha_composite(canvas, picture).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _resolution(image: Image.Image) -> tuple[float | None, float | None]:
    if image.format == "TIFF":
        tags = image.getexif()
        unit = _TIFF_UNIT_MICROMETRES.get(int(tags.get(_RESOLUTION_UNIT, 2)))
        densities = [float(tags[tag]) if tag in tags else None for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
        return resolution.sane_pair(*(resolution.from_density(density, unit) for density in densities))
    dots = image.info.get("dpi", (None, None))
    return resolution.sane_pair(*(resolution.from_density(float(each) if each else None, 25400.0) for each in dots))
