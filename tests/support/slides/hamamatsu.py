"""Hamamatsu's slides made for tests: NDPI, which is a TIFF but for its wider numbers, and VMS, pictures that a file of text names.

Both keep JPEGs with restart markers, whose intervals OpenSlide reads as tiles. See https://openslide.org/formats/hamamatsu/.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import Image

from tests.support.slides.painted import Pixels

_TEXT, _SHORT, _LONG, _RATIO, _FLOAT, _SIGNED = 2, 3, 4, 5, 11, 9
_CODES = {_SHORT: "H", _LONG: "I", _RATIO: "I", _FLOAT: "f", _SIGNED: "i"}
# Edge of a block of JPEG without subsampling.
_BLOCK = 8


def write_ndpi(
    path: Path, levels: Sequence[Pixels], *, interval: int = 16, mpp: float = 0.5, start: int = 0, smallest_whole: bool = True
) -> Path:
    """Levels from large to small, each with its restart markers after `interval` blocks, and a macro image.

    `start`: where pictures begin in the file, which may lie beyond what a TIFF reaches. `smallest_whole`: the last level has no markers.
    """
    pictures = [_jpeg(pixels, 0 if smallest_whole and 0 < number == len(levels) - 1 else interval) for number, pixels in enumerate(levels)]
    with path.open("wb") as file:
        file.write(b"II*\x00" + bytes(8))
        file.seek(max(start, file.tell()))
        link, lens = 4, 20.0
        for number, (pixels, picture) in enumerate(zip(levels, pictures, strict=True)):
            density = round(10_000 / mpp * pixels.shape[1] / levels[0].shape[1])
            link = _directory(file, link, pixels, picture, lens=lens / 2**number, density=density)
        macro = np.ascontiguousarray(levels[-1][::2, ::2])
        _directory(file, link, macro, _jpeg(macro, 0), lens=-1.0, density=100)
    return path


def _directory(file: BinaryIO, link: int, pixels: Pixels, picture: bytes, *, lens: float, density: int) -> int:
    """Write a picture and its directory, and its place at `link`; returns where the place of the next one goes."""
    begin = file.tell()
    file.write(picture)
    height, width = pixels.shape[:2]
    tags: list[tuple[int, int, list[int] | list[float] | bytes]] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [8, 8, 8]),
        (259, _SHORT, [7]),
        (262, _SHORT, [6]),
        (271, _TEXT, b"Hamamatsu\x00"),
        (273, _LONG, [begin]),
        (277, _SHORT, [3]),
        (278, _LONG, [height]),
        (279, _LONG, [len(picture)]),
        (282, _RATIO, [density, 1]),
        (283, _RATIO, [density, 1]),
        (296, _SHORT, [3]),
        (65420, _LONG, [1]),
        (65421, _FLOAT, [lens]),
        (65422, _SIGNED, [0]),
        (65423, _SIGNED, [0]),
        (65424, _SIGNED, [0]),
    ]
    if starts := _interval_starts(picture):
        tags.append((65426, _LONG, list(starts)))
    entries, wider = b"", b""
    for number, kind, content in tags:
        data = content if isinstance(content, bytes) else None
        if data is None and kind == _LONG and len(content) == 1:
            low, high = content[0] & 0xFFFFFFFF, content[0] >> 32
            entries += struct.pack("<HHII", number, kind, 1, low)
            wider += struct.pack("<I", high)
            continue
        data = struct.pack(f"<{len(content)}{_CODES[kind]}", *content) if data is None else data
        count = len(content) // (2 if kind == _RATIO else 1)
        if len(data) > 4 or kind == _TEXT:
            where = file.tell()
            file.write(data)
            entries += struct.pack("<HHII", number, kind, count, where & 0xFFFFFFFF)
            wider += struct.pack("<I", where >> 32)
        else:
            entries += struct.pack("<HHI", number, kind, count) + data.ljust(4, b"\x00")
            wider += bytes(4)
    place = file.tell()
    file.seek(link)
    file.write(struct.pack("<Q", place))
    file.seek(place)
    file.write(struct.pack("<H", len(tags)) + entries)
    following = file.tell()
    # After the place of the next one come the upper halves of what the entries hold.
    file.write(bytes(8) + wider)
    return following


def _interval_starts(picture: bytes) -> list[int]:
    """Where intervals begin, counted from the picture's beginning; none where it has no markers."""
    scan = picture.index(b"\xff\xda")
    first = scan + 2 + int.from_bytes(picture[scan + 2 : scan + 4], "big")
    marks = [at + 2 for at in range(first, len(picture) - 1) if picture[at] == 0xFF and 0xD0 <= picture[at + 1] <= 0xD7]
    return [first, *marks] if marks else []


def write_vms(path: Path, pixels: Pixels, *, columns: int = 2, interval: int = 10, mpp: float = 0.5, map_step: int = 8) -> Path:
    """Pictures beside each other, a small map of all of it, and a macro image, all in the file's folder."""
    height, width = pixels.shape[:2]
    parts = np.split(pixels, columns, axis=1)
    names = [f"{path.stem}_{column}.jpg" for column in range(columns)]
    for name, part in zip(names, parts, strict=True):
        (path.parent / name).write_bytes(_jpeg(part, interval))
    small = np.ascontiguousarray(pixels[::map_step, ::map_step])
    (path.parent / f"{path.stem}_map.jpg").write_bytes(_jpeg(small, small.shape[1] // _BLOCK))
    (path.parent / f"{path.stem}_macro.jpg").write_bytes(_jpeg(small, 0))
    images = "".join(f"ImageFile{f'({column},0)' if column else ''}={name}\n" for column, name in enumerate(names))
    path.write_text(
        f"[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns={columns}\nNoJpegRows=1\n{images}"
        f"MapFile={path.stem}_map.jpg\nMacroImage={path.stem}_macro.jpg\n"
        f"PhysicalWidth={round(width * mpp * 1000)}\nPhysicalHeight={round(height * mpp * 1000)}\nSourceLens=20\n"
    )
    return path


def _jpeg(pixels: Pixels, interval: int) -> bytes:
    """`interval`: blocks between restart markers; 0 for none."""
    if not interval:
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90, colorsubsampling="444"))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90, subsampling="4:4:4", restart_marker_blocks=interval)
    return file.getvalue()
