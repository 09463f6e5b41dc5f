"""What an analysis wrote or sent, to be compared with what another one did."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tifffile
from PIL import Image

from inference_server.tasks.slides.values import Chunk

# Of a TIFF, that tell where its bytes lie.
_PLACES = {"TileOffsets", "TileByteCounts", "SubIFDs"}


def contents(folder: Path) -> dict[str, bytes]:
    """The files by name, unpacked: now and then isal packs the same bytes in another way."""
    return {path.name: unpacked(path.name, path.read_bytes()) for path in folder.iterdir() if path.is_file()}


def sent(events: list[Any]) -> dict[str, bytes]:
    """The files that a run sent instead of writing them, by name and unpacked."""
    return {
        file.name: unpacked(file.name, b"".join(each.data for each in events if isinstance(each, Chunk) and each.name == file.name))
        for file in events[-1].artifacts
    }


def told(artifacts: Sequence[Mapping[str, Any]], read: Callable[[str], bytes]) -> dict[str, bytes]:
    """The files that a job's result tells of, by name and unpacked; of the report, which names the job, nothing.

    Each has the digest that is told of it.
    """
    found = {each["name"]: read(each["uri"]) for each in artifacts}
    assert [each["sha256"] for each in artifacts] == [hashlib.sha256(content).hexdigest() for content in found.values()]
    return {name: b"" if name == "analysis.json" else unpacked(name, content) for name, content in found.items()}


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
            tags = [(tag.name, tag.value) for level in levels for tag in level.keyframe.tags if tag.name not in _PLACES]
            return f"{tags} ".encode() + b"".join(level.asarray().tobytes() for level in levels)
    return content
