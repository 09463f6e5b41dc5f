"""Tiles that are pictures of their own and that Pillow decodes: JPEG 2000 and WebP, each alone in asking it for them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from inference_server.tasks.slides.readers.regions import WHITE
from inference_server.tasks.slides.values import Pixels

# A codestream of JPEG 2000, and a file that holds one; and in how many bytes its header lies.
_CODESTREAM, _JP2 = b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "
BEGINNING_BYTES = 1024


def of_jpeg2000(data: bytes, size: tuple[int, int], *, is_apart: bool) -> Pixels:
    """Of a codestream or a JP2 file; `size`: rows and columns; `is_apart`: whether its components are Y, Cb, Cr. Raises for damage."""
    if not data.startswith((_CODESTREAM, _JP2)):
        raise ValueError("no JPEG 2000")
    with Image.open(io.BytesIO(data), formats=("JPEG2000",)) as picture:
        # Headers only so far: a few bytes may claim any size.
        if (picture.height, picture.width) != size:
            raise ValueError("a tile of another size")
        pixels = np.asarray(picture.convert("RGB") if picture.mode == "L" else picture)
    return _rgb_of(pixels) if is_apart else pixels


def of_webp(data: bytes, size: tuple[int, int], *, is_straight: bool) -> Pixels:
    """Of a WebP; `size`: rows and columns; `is_straight`: whether its colours are still to be mixed with white. Raises for damage."""
    # Pillow asks for the memory of the whole picture as it opens one.
    if _size_of_webp(data) != size:
        raise ValueError("a tile of another size")
    with Image.open(io.BytesIO(data), formats=("WEBP",)) as picture:
        pixels = np.asarray(picture)
    return over_white(pixels, is_straight=is_straight) if picture.mode == "RGBA" else pixels


def _size_of_webp(data: bytes) -> tuple[int, int]:
    """Rows and columns, as the first chunk tells them (RFC 9649)."""
    kind, bits = data[12:16], int.from_bytes
    if kind == b"VP8 ":
        return bits(data[28:30], "little") & 0x3FFF, bits(data[26:28], "little") & 0x3FFF
    if kind == b"VP8L":
        told = bits(data[21:25], "little")
        return (told >> 14 & 0x3FFF) + 1, (told & 0x3FFF) + 1
    return bits(data[27:30], "little") + 1, bits(data[24:27], "little") + 1


def is_subsampled(data: bytes) -> bool:
    """Whether a codestream has components of fewer pixels, as its SIZ segment says (ITU-T T.800, A.5.1); `data`: it, or its beginning."""
    if _CODESTREAM not in data:
        return False
    siz = data.index(_CODESTREAM) + 4
    count = int.from_bytes(data[siz + 36 : siz + 38], "big")
    steps = [data[siz + 39 + 3 * number : siz + 41 + 3 * number] for number in range(count)]
    return any(step != b"\x01\x01" for step in steps if len(step) == 2)


def over_white(pixels: Pixels, *, is_straight: bool) -> Pixels:
    """R, G, B on white of what has an opacity too. `is_straight`: colours do not have it in them yet."""
    opacity = pixels[..., 3:].astype(np.uint16)
    glass = WHITE - opacity
    mixed = (pixels[..., :3] * opacity + WHITE * glass + 127) // 255 if is_straight else np.minimum(pixels[..., :3] + glass, WHITE)
    white: Pixels = mixed.astype(np.uint8)
    return white


def _rgb_of(pixels: Pixels) -> Pixels:
    """R, G, B of Y, Cb, Cr (ITU-R BT.601, full range), in the fixed-point arithmetic of libjpeg and OpenSlide."""
    luma = pixels[..., 0].astype(np.int32)
    blue, red = (pixels[..., channel].astype(np.int32) - 128 for channel in (1, 2))
    half = 1 << 15
    channels = (
        luma + ((91881 * red + half) >> 16),
        luma + ((-22554 * blue - 46802 * red + half) >> 16),
        luma + ((116130 * blue + half) >> 16),
    )
    mixed: Pixels = np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)
    return mixed
