"""What an analysis wrote, to be compared with what another one did."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import tifffile
from PIL import Image


def contents(folder: Path) -> dict[str, bytes]:
    """The files by name, unpacked: isal packs the same bytes in another way now and then (once in thousands of files)."""
    return {path.name: unpacked(path.name, path.read_bytes()) for path in folder.iterdir() if path.is_file()}


def unpacked(name: str, content: bytes) -> bytes:
    """What a file of that name holds."""
    if name.endswith(".gz"):
        return gzip.decompress(content)
    if name.endswith(".png"):
        with Image.open(io.BytesIO(content)) as image:
            return f"{image.mode} {image.size} ".encode() + image.tobytes()
    if name.endswith((".tif", ".tiff")):
        with tifffile.TiffFile(io.BytesIO(content)) as tiff:
            levels = [level for series in tiff.series for level in series.levels]
            told = f"{tiff.ome_metadata} {[(level.shape, str(level.dtype)) for level in levels]} ".encode()
            return told + b"".join(level.asarray().tobytes() for level in levels)
    return content
