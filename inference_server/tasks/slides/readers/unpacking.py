"""Tiles that are packed without loss: unpacked as far as the pixels of a tile reach, since some kilobytes may unpack to gigabytes.

`buffer` is what is packed, `size` the bytes that a tile has unpacked.
"""

from __future__ import annotations

import io
import lzma
import struct
from typing import Any

from isal import isal_zlib
from PIL import Image

# Tags of a TIFF of one row: width, height, bits, compression (LZW), photometric, place, samples, rows of a strip, length.
_ENTRY, _ENTRIES = "HHII", 9
_HEADER = struct.Struct(f"<2sHIH{_ENTRY * _ENTRIES}I")
_SHORT, _LONG, _LZW = 3, 4, 5
# Of what LZMA looks back at: its strongest preset asks for 65 MiB, and a file may claim 4 GiB.
_MOST_LZMA_BYTES = 2**27


def inflated(*, buffer: Any, size: int) -> bytes:
    """Of a zlib stream; fewer bytes where it has no more, and what follows them is passed over. Raises isal's error for damage."""
    unpacked: bytes = isal_zlib.decompressobj().decompress(buffer, size)
    return unpacked


def of_lzw(*, buffer: Any, size: int) -> bytes:
    """Of LZW as TIFF has it, by libtiff, to which it is handed as one row of pixels. Raises `OSError` for damage, or fewer bytes."""
    packed = bytes(buffer)
    fields = [(256, _LONG, size), (257, _LONG, 1), (258, _SHORT, 8), (259, _SHORT, _LZW), (262, _SHORT, 1), (273, _LONG, _HEADER.size)]
    fields += [(277, _SHORT, 1), (278, _LONG, 1), (279, _LONG, len(packed))]
    entries = (part for tag, kind, value in fields for part in (tag, kind, 1, value))
    header = _HEADER.pack(b"II", 42, 8, _ENTRIES, *entries, 0)
    with Image.open(io.BytesIO(header + packed), formats=("TIFF",)) as row:
        return row.tobytes()


def of_lzma(*, buffer: Any, size: int) -> bytes:
    """Of a stream of xz, as libtiff writes it; fewer bytes where it has no more. Raises `lzma.LZMAError` for damage."""
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_LZMA_BYTES).decompress(buffer, size)


def of_zstandard(*, buffer: Any, size: int) -> bytes:
    """Of a Zstandard frame, which must hold as many bytes. Raises `OSError` for any other."""
    # Few slides are packed so, and it takes long to import.
    import pyarrow

    unpacked: bytes = pyarrow.Codec("zstd").decompress(buffer, decompressed_size=size, asbytes=True)
    return unpacked
