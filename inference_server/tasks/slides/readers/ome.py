"""OME-XML (Open Microscopy Environment, 2016-06): which images a TIFF holds, where, and what is told of each.

One file may hold a slide's macro image or label too, in any order, and its XML may tell of images that lie in other files.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Not beyond the next element, so that looking for one takes no longer than the text is long.
_ATTRIBUTES = r"""((?:[^<>"']|"[^<"]*"|'[^<']*')*)>"""
_ROOT, _PIXELS, _DATA, _UUID = (re.compile(rf"<(?:\w+:)?{name}\b{_ATTRIBUTES}") for name in ("OME", "Pixels", "TiffData", "UUID"))
# Of a size or a number that is taken for one; of thousands Python makes none.
_MOST_DIGITS = 18
_PLACES = ("FirstT", "FirstZ", "FirstC")


@dataclass(frozen=True, kw_only=True)
class OmeImage:
    """One image whose first plane lies in this file."""

    width: int
    height: int
    # Number of the directory with its first plane, along the file's chain.
    directory: int
    # Attributes of its Pixels element, as XML writes them.
    pixels: str


def images_of(description: str, name: str) -> list[OmeImage]:
    """The images in the file of that name, in the order of the XML; empty where it is none, or tells of other files alone."""
    root = _ROOT.search(description)
    if not root:
        return []
    own = _value(root[1], "UUID")
    found = []
    for pixels, below in _with_what_follows(_PIXELS, description):
        directory = _directory(below, own, name)
        if directory is not None:
            width, height = (_whole(pixels, side) for side in ("SizeX", "SizeY"))
            found.append(OmeImage(width=width, height=height, directory=directory, pixels=pixels))
    return found


def slide_of(images: Sequence[OmeImage], sizes: Sequence[tuple[int, int]]) -> OmeImage | None:
    """The largest image, as viewers offer it; None where no directory is as large as its image is told to be.

    `sizes`: width and height of the directories along the file's chain.
    """
    fitting = [each for each in images if each.directory < len(sizes) and sizes[each.directory] == (each.width, each.height)]
    return max(fitting, key=lambda each: each.width * each.height, default=None)


def image_told(description: str, name: str, size: tuple[int, int]) -> OmeImage:
    """The image of a size, else the first one that is told, wherever it lies; one without attributes where there is no OME-XML."""
    fitting = [each for each in images_of(description, name) if (each.width, each.height) == size]
    first = _PIXELS.search(description) if _ROOT.search(description) else None
    return fitting[0] if fitting else OmeImage(width=size[0], height=size[1], directory=0, pixels=first[1] if first else "")


def channels(pixels: str) -> int:
    """SizeC of a Pixels element; 0 where it is not told."""
    return _whole(pixels, "SizeC")


def planes(pixels: str) -> tuple[int, int]:
    """SizeZ and SizeT of a Pixels element; 0 for what is not told."""
    return _whole(pixels, "SizeZ"), _whole(pixels, "SizeT")


def _directory(below: str, own: str, name: str) -> int | None:
    """Where the first plane lies that is in this file. `below`: what follows the start of a Pixels element."""
    parts = list(_with_what_follows(_DATA, below))
    if not parts:
        return 0
    here = [data for data, content in parts if _is_here(data, content, own, name)]
    first = min(here, key=lambda each: [_whole(each, place) for place in _PLACES], default=None)
    return None if first is None else _whole(first, "IFD")


def _is_here(data: str, content: str, own: str, name: str) -> bool:
    content = content.partition("TiffData>")[0]
    told = None if data.endswith("/") else _UUID.search(content)
    if not told:
        return True
    uuid = content[told.end() :].partition("<")[0].strip()
    return (bool(own) and uuid == own) or _value(told[1], "FileName") == name


def _with_what_follows(element: re.Pattern[str], text: str) -> Iterator[tuple[str, str]]:
    """Attributes of each element of a kind, and the text up to the next one."""
    starts = list(element.finditer(text))
    for start, following in itertools.zip_longest(starts, starts[1:]):
        yield start[1], text[start.end() : following.start() if following else None]


def _whole(attributes: str, name: str) -> int:
    value = _value(attributes, name)
    return int(value) if value.isdecimal() and len(value) <= _MOST_DIGITS else 0


def _value(attributes: str, name: str) -> str:
    found = re.search(rf"""(?:^|\s){name}\s*=\s*(?:"([^"]*)"|'([^']*)')""", attributes)
    return (found[1] or found[2] or "") if found else ""
