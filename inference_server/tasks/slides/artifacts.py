"""The files of an analysis: made in a temporary folder, then written to storage or streamed to the caller."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from inference_server.storage import Storage
from inference_server.tasks.slides import geojson, rendering, table
from inference_server.tasks.slides.findings import Findings
from inference_server.tasks.slides.grid import Grid, coarser
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.tissue import scan
from inference_server.tasks.slides.values import ArtifactFacts, Chunk, Pixels

CHUNK_BYTES = 256 * 1024
_LARGEST_THUMBNAIL = 2048
MEDIA_TYPES = {
    "analysis.json": "application/json",
    "heatmap.png": "image/png",
    "overlay.png": "image/png",
    "detections.geojson.gz": geojson.MEDIA_TYPE,
    table.FILE: table.MEDIA_TYPE,
}


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A small picture of the slide."""

    pixels: Pixels
    # Level-0 pixels per pixel along x and y.
    scale: tuple[float, float]
    # Micrometres per pixel.
    mpp: float


async def thumbnail(regions: Regions, grid: Grid, cells: Pixels, cell: int) -> Thumbnail:
    """At most 2048 px: from the tissue cells where they are fine enough, else read once more. `cell`: grid pixels per cell."""
    factor = max(-(-max(grid.width, grid.height) // _LARGEST_THUMBNAIL), 1)
    if factor < cell:
        small = coarser(regions.facts, grid, factor)
        return Thumbnail(pixels=await scan(regions, small), scale=(small.scale_x, small.scale_y), mpp=small.mpp_x)
    times = -(-max(cells.shape[:2]) // _LARGEST_THUMBNAIL)
    pixels = np.asarray(await asyncio.to_thread(Image.fromarray(cells).reduce, times))
    whole = times * cell
    return Thumbnail(pixels=pixels, scale=(grid.scale_x * whole, grid.scale_y * whole), mpp=grid.mpp_x * whole)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the files of an analysis are made from."""

    findings: Findings
    picture: Thumbnail
    # analysis.json whole.
    report: str
    rows: table.TileRows
    # What the table says of itself.
    about: Mapping[str, str]


def make(folder: Path, contents: Contents) -> None:
    """Write all files of an analysis into a folder; blocks."""
    findings, picture, facts = contents.findings, contents.picture, contents.rows.facts
    (folder / "analysis.json").write_text(contents.report, encoding="utf-8")
    (folder / "heatmap.png").write_bytes(rendering.heatmap(findings.heat))
    drawn = rendering.overlay(picture.pixels, picture.scale, picture.mpp, findings.heat, findings.points)
    (folder / "overlay.png").write_bytes(drawn)
    geojson.write(folder / "detections.geojson.gz", findings.shapes, offset=(float(facts.bounds_x), float(facts.bounds_y)))
    table.write(folder / table.FILE, contents.rows, findings, about=contents.about)


async def deliver(
    folder: Path, *, storage: Storage, output_uri: str, stream: Callable[[Chunk], Awaitable[None]]
) -> tuple[ArtifactFacts, ...]:
    """Write the files under `output_uri`, or stream them when it is empty. Raises `AccessDenied`, `Unavailable`."""
    delivered = []
    for name, media_type in MEDIA_TYPES.items():
        path = folder / name
        uri = place(output_uri, name) if output_uri else ""
        if uri:
            await storage.write(uri, path)
        else:
            await _stream(path, stream)
        sha256 = await asyncio.to_thread(_sha256, path)
        delivered.append(ArtifactFacts(name=name, media_type=media_type, uri=uri, size_bytes=path.stat().st_size, sha256=sha256))
    return tuple(delivered)


def place(output_uri: str, name: str) -> str:
    """Where an artifact goes."""
    return f"{output_uri.rstrip('/')}/{name}"


async def _stream(path: Path, stream: Callable[[Chunk], Awaitable[None]]) -> None:
    offset = 0
    with await asyncio.to_thread(path.open, "rb") as file:
        while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
            await stream(Chunk(name=path.name, offset=offset, data=data))
            offset += len(data)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
