"""TIFF files of many small frames, or whose chain of frames goes wrong, written by hand."""

from __future__ import annotations

import struct

# 8 × 8 pixels of a byte.
_PIXELS = 64
_ENTRIES = 8


def tiff_of(levels: list[int], *, last_next: int = 0, big: bool = False) -> bytes:
    """A frame for each grey level. `last_next`: where the last frame says the next one is; 0 for none. `big`: as BigTIFF."""
    entry, count, place = ("<HHQQ", "<Q", "<Q") if big else ("<HHII", "<H", "<I")
    header = b"II+\x00\x08\x00\x00\x00" if big else b"II*\x00"
    first = len(header) + struct.calcsize(place)
    table = struct.calcsize(count) + _ENTRIES * struct.calcsize(entry) + struct.calcsize(place)
    data = first + len(levels) * table
    out = bytearray(header + struct.pack(place, first))
    for index in range(len(levels)):
        tags = (
            (256, 3, 8),
            (257, 3, 8),
            (258, 3, 8),
            (259, 3, 1),
            (262, 3, 1),
            (273, 4, data + index * _PIXELS),
            (278, 3, 8),
            (279, 4, _PIXELS),
        )
        out += struct.pack(count, _ENTRIES) + b"".join(struct.pack(entry, tag, kind, 1, value) for tag, kind, value in tags)
        out += struct.pack(place, first + (index + 1) * table if index + 1 < len(levels) else last_next)
    return bytes(out) + b"".join(bytes([level]) * _PIXELS for level in levels)
