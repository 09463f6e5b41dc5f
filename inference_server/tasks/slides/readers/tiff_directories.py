"""What the directories of a TIFF are: a vendor's, a slide with its levels, or pictures beside it. They are async-tiff's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inference_server.tasks.slides.readers.port import NotThisReader
from inference_server.tasks.slides.readers.tiff_headers import ARGOS_METADATA, XMP

# NewSubfileType (TIFF 6.0) of what is no level: a mask, and Aperio's macro image. A level has 1, and 2 as a page of several.
MASK, MACRO = 4, 8
# Levels of one pyramid differ in proportion by rounding only: by a pixel, and what that does to small ones is added.
_PROPORTION_TOLERANCE = 0.005


def levels_of(directories: list[Any]) -> Iterator[int]:
    """Numbers of level 0 and the smaller tiled images of its proportions and its kind of pixels, from large to small.

    Labels, macros and thumbnails are stored in strips, masks in one sample.
    """
    base = directories[0]
    yield 0
    least = base.image_width
    for number, directory in enumerate(directories[1:], 1):
        width, height = directory.image_width, directory.image_height
        if None in (directory.tile_width, directory.tile_height) or width >= least or min(width, height) < 1 or _differs(directory, base):
            continue
        across, down = base.image_width / width, base.image_height / height
        if abs(across / down - 1) <= _PROPORTION_TOLERANCE + 1 / width + 1 / height:
            least = width
            yield number


def _differs(directory: Any, base: Any) -> bool:
    """Whether pixels are of another kind than those of level 0, as of a mask in grey, or a macro image or mask is told to be such."""
    is_beside = (directory.new_subfile_type or 0) & (MASK | MACRO)
    return (
        bool(is_beside)
        or (directory.samples_per_pixel == 1) != (base.samples_per_pixel == 1)
        or directory.bits_per_sample[:1] != base.bits_per_sample[:1]
    )


def alike(directories: list[Any]) -> int:
    """How many images are as large as the first, in tiles as it is, and of its kind of pixels; it is one of them.

    A thumbnail of a small slide may be as large, and is stored in strips.
    """
    base = directories[0]
    size = base.image_width, base.image_height
    tiled = [each for each in directories if None not in (each.tile_width, each.tile_height)]
    return sum((each.image_width, each.image_height) == size and not _differs(each, base) for each in tiled)


def refuse_other_formats(uri: str, directories: list[Any]) -> None:
    """Raise `NotThisReader` for a format that is laid out otherwise."""
    if any(map(_is_other_format, directories)):
        raise NotThisReader(f"{uri} is a vendor's TIFF with a layout of its own")


def refuse_without_tiles(uri: str, base: Any) -> None:
    """Raise `NotThisReader` where the slide is not stored in tiles."""
    if base.tile_width is None or base.tile_height is None:
        raise NotThisReader(f"{uri} is a TIFF without tiles")


def _is_other_format(directory: Any) -> bool:
    software, description = (directory.software or ""), (directory.image_description or "")
    if software.startswith(("Philips", "MedScan")) or "<scn" in description[:2000] or "level=0" in description:
        return True
    return "iScan" in _text(directory, XMP) or "Argos.Scan.Metadata" in _text(directory, ARGOS_METADATA)


def _text(directory: Any, tag: int) -> str:
    value = directory.other_tags.get(tag, "")
    return bytes(value).decode("latin-1") if isinstance(value, (list, bytes)) else str(value)
