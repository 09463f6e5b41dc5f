"""How numbers are stored in a TIFF, and what a directory of it holds."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Bytes of a value of each type.
WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE_NUMBERS = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How numbers are stored: `struct` formats of the count of entries, of one entry and of an offset."""

    # `<` or `>`.
    order: str
    count: struct.Struct
    # Tag, type, count, and the value where it fits in.
    entry: struct.Struct
    offset: struct.Struct
    # Where the offset of the first directory is.
    first: int

    @staticmethod
    def of(order: str, *, big: bool) -> Layout:
        """Of a file of this order, a BigTIFF or not."""
        count, entry, offset, first = ("Q", "HHQ8s", "Q", 8) if big else ("H", "HHI4s", "I", 4)
        return Layout(
            order=order,
            count=struct.Struct(order + count),
            entry=struct.Struct(order + entry),
            offset=struct.Struct(order + offset),
            first=first,
        )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tag of a directory."""

    tag: int
    kind: int
    count: int
    # The value, or where it lies.
    inline: bytes

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return self.count * WIDTHS[self.kind]


# With the value of each of its tags that is read.
Directory = list[tuple[Entry, bytes]]


def whole_number(layout: Layout, directory: Directory, tag: int) -> int:
    """The first whole number of a tag; 0 where it has none."""
    return int(next(iter(whole_numbers(layout, directory, tag)), 0))


def whole_numbers(layout: Layout, directory: Directory, tag: int) -> NDArray[np.uint64]:
    """The whole numbers of a tag; none where it has others."""
    found = [(_WHOLE_NUMBERS.get(entry.kind), value) for entry, value in directory if entry.tag == tag]
    kind, value = found[0] if found else (None, b"")
    return np.frombuffer(value, f"{layout.order}{kind}").astype(np.uint64) if kind else np.empty(0, np.uint64)
