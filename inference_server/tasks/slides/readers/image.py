"""Images without tiles (PNG, JPEG, striped TIFF): decoded whole under a limit of pixels, then served in blocks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from inference_server.errors import InvalidSlide
from inference_server.tasks.slides import resolution
from inference_server.tasks.slides.readers import ome
from inference_server.tasks.slides.readers.port import CONVERT
from inference_server.tasks.slides.readers.regions import WHITE
from inference_server.tasks.slides.readers.stacks import refuse_stacks
from inference_server.tasks.slides.readers.tiff_directories import MACRO, MASK
from inference_server.tasks.slides.values import Level, Pixels, Position, SlideFacts, SlideLimits

_BLOCK = 512
_FORMATS = ("TIFF", "PNG", "JPEG")
# That are looked at of a TIFF; labels come among the first.
_MOST_FRAMES = 20
# Pillow raises each of them for damaged files, and for ways to store them that it does not know.
_FAILURES = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, ArithmeticError, struct.error)
_RESOLUTION_UNIT, _X_RESOLUTION, _Y_RESOLUTION, _DESCRIPTION, _NEW_SUBFILE_TYPE = 296, 282, 283, 270, 254
# As far as it is searched, which takes seconds of megabytes.
_MOST_DESCRIPTION = 2**18
_TIFF_UNIT_MICROMETRES = {2: resolution.INCH, 3: resolution.CENTIMETRE}
_COLOUR_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "YCbCr"})
_GREY_MODES = frozenset({"1", "L"})
# What brings back the pixels as they are stored, by the orientation by which Pillow turned them.
_ORIENTATION = 274
_TURNED_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True, kw_only=True)
class _Bound:
    """How large what is decoded may be, and what its sender can do about what is wrong with it."""

    most_pixels: int
    # Of `SlideLimits`.
    limit: str
    # What is too large has so many pixels, why that is too many, and how to mend it; at most so many pixels are taken.
    too_large: str
    damaged: str


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What the description of a TIFF's first image says; empty of other files."""

    description: str
    # Attributes of the image's pixels, where there is OME-XML.
    pixels: str


def _of_slide(limits: SlideLimits) -> _Bound:
    return _Bound(
        most_pixels=limits.most_image_pixels,
        limit="image_pixels",
        too_large="is an image without tiles and has {size}px: such an image must be decoded whole, and at most {most:,} px are. "
        + CONVERT,
        damaged="it is truncated, damaged or of a kind that is not read, such as floating point, CIE L*a*b*, "
        "or WebP, JPEG 2000, JPEG XL or LERC without tiles. "
        # No command: what libvips makes of floating point in JPEG is black.
        "Copy or upload it again, whole; if other programs open it, export it with one of them as 8-bit RGB in LZW or deflate.",
    )


def _of_tile(most_pixels: int) -> _Bound:
    return _Bound(
        most_pixels=most_pixels,
        limit="tile_pixels",
        too_large="has {size}px; at most {most:,} px a tile are accepted. Send it in parts.",
        damaged="it is truncated, damaged, or neither JPEG nor PNG nor TIFF. Send it whole as one of these, or its pixels as rgb.",
    )


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
        pixels, mpp, profile = _decode(uri, path, _of_slide(limits))
        return cls(facts=dataclasses.replace(facts_of(uri, pixels, mpp), icc_profile=profile), pixels=pixels)

    @property
    def facts(self) -> SlideFacts:
        """What the image is."""
        return self._facts

    async def read_tiles(self, level: int, places: Sequence[Position], soon: Sequence[Position] = ()) -> list[Pixels | None]:
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
    return _decode(name, io.BytesIO(content), _of_tile(most_pixels))[0]


def _decode(name: str, source: Path | io.BytesIO, bound: _Bound) -> tuple[Pixels, tuple[float | None, float | None], bytes]:
    try:
        # `Image.open` reads headers only; its own bound on pixels is looser than ours.
        with warnings.catch_warnings(), Image.open(source, formats=_FORMATS) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            _check_size(name, image, bound)
            told = _told(name, image)
            _check(name, image, told)
            mpp = _resolution(image, told)
            return np.ascontiguousarray(_on_white(_as_stored(image))), mpp, image.info.get("icc_profile") or b""
    except Image.DecompressionBombError as error:
        raise _too_large(name, "far more ", bound) from error
    except _FAILURES as error:
        raise InvalidSlide(f"{name} cannot be decoded: {bound.damaged}") from error


def _check_size(name: str, image: Image.Image, bound: _Bound) -> None:
    width, height = image.size
    if width * height > bound.most_pixels:
        raise _too_large(name, f"{width} × {height} ", bound)


def _check(name: str, image: Image.Image, told: _Told) -> None:
    if image.format == "TIFF":
        _check_others(name, image, told)
    if image.mode not in _COLOUR_MODES:
        raise InvalidSlide(f"{name} has pixels of kind {image.mode}; expected 8-bit RGB or grey, as brightfield slides have. Export it so.")


def _check_others(name: str, image: Image.Image, told: _Told) -> None:
    """Raise `InvalidSlide` where the first image of a TIFF file is not all of the slide."""
    (width, height), others = image.size, _others(image)
    if larger := next((size for size, _ in others if size[0] * size[1] > width * height), None):
        raise InvalidSlide(
            f"{name} begins with an image of {width} × {height} px, and has one of {larger[0]} × {larger[1]} px after it; "
            "the first is read of images without tiles, and this one may be a label or a macro image. Export the slide alone."
        )
    alike, samples = 1 + others.count((image.size, image.mode)), 1 if image.mode in _GREY_MODES else 3
    refuse_stacks(name, told.description, alike=alike, samples=samples, told=told.pixels)


def _others(image: Image.Image) -> list[tuple[tuple[int, int], str]]:
    """Size and mode of the images after the first, as far as they are looked at, but of what is told to be a mask or a macro image."""
    found = []
    # Pillow adds what others tell, such as their colour profile.
    of_first = dict(image.info)
    # The end of them, damage, or what Pillow does not know: what is read is the first alone.
    with contextlib.suppress(*_FAILURES):
        for number in range(1, _MOST_FRAMES):
            image.seek(number)
            if not int(image.getexif().get(_NEW_SUBFILE_TYPE, 0)) & (MASK | MACRO):
                found.append((image.size, image.mode))
    image.seek(0)
    image.info = of_first
    return found


def _too_large(name: str, size: str, bound: _Bound) -> InvalidSlide:
    return InvalidSlide(f"{name} {bound.too_large.format(size=size, most=bound.most_pixels)}", limit=bound.limit)


def _as_stored(image: Image.Image) -> Image.Image:
    """Not turned by an orientation, as in other readers and in OpenSlide: Pillow turns a TIFF when it is loaded, and nothing else."""
    orientation = image.getexif().get(_ORIENTATION) if image.format == "TIFF" else None
    image.load()
    return image.transpose(_TURNED_BACK[orientation]) if orientation in _TURNED_BACK else image


def _on_white(image: Image.Image) -> Pixels:
    if image.mode in ("LA", "RGBA") or "transparency" in image.info:
        picture = image.convert("RGBA")
        canvas = Image.new("RGBA", picture.size, (WHITE, WHITE, WHITE, 255))
        return np.asarray(Image.alpha_composite(canvas, picture).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _resolution(image: Image.Image, told: _Told) -> tuple[float | None, float | None]:
    if image.format != "TIFF":
        dots = image.info.get("dpi", (None, None))
        return resolution.sane_pair(*(resolution.from_density(float(each) if each else None, resolution.INCH) for each in dots))
    tags = image.getexif()
    unit = _TIFF_UNIT_MICROMETRES.get(int(tags.get(_RESOLUTION_UNIT, 2)))
    across, down = (float(tags[tag]) if tag in tags else None for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    by_ome = resolution.sane_pair(*resolution.from_ome(told.pixels))
    if by_ome[0] is not None:
        return by_ome
    by_imagej = resolution.from_imagej(told.description, across, down, unit)
    return by_imagej or resolution.sane_pair(resolution.from_density(across, unit), resolution.from_density(down, unit))


def _told(name: str, image: Image.Image) -> _Told:
    found = image.getexif().get(_DESCRIPTION, "") if image.format == "TIFF" else ""
    # Pillow takes the bytes for Latin-1; OME's are UTF-8.
    text = found[:_MOST_DESCRIPTION].encode("latin-1", "replace").decode("utf-8", "replace") if isinstance(found, str) else ""
    return _Told(description=text, pixels=ome.image_told(text, Path(name).name, image.size).pixels)
