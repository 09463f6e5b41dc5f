"""Tables of tiles, one row a tile, written in portions, so that they never lie in memory whole: tiles.parquet and embeddings.parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.engines import TileEngines
from inference_server.tasks.slides.findings import Column, Findings, Vectors
from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.tiling import Tile, cell_sums, places_of
from inference_server.tasks.slides.tissue.cells import PackedMask
from inference_server.tasks.slides.tissue.mask import Tissue
from inference_server.tasks.slides.values import SlideFacts

FILE = "tiles.parquet"
MEDIA_TYPE = "application/vnd.apache.parquet"
SCHEMA = "lamina.slide-tiles/1"
VECTORS_FILE = "embeddings.parquet"
VECTORS_SCHEMA = "lamina.slide-embeddings/1"
# Rows of a row group, and the most that are held at once.
_ROWS = 16_384
# Bytes of the vectors of a row group.
_VECTOR_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class TileRows:
    """The tiles of a slide and where they lie on it."""

    tiles: Sequence[Tile]
    grid: Grid
    facts: SlideFacts
    tissue: Tissue
    engines: TileEngines

    def places(self, tiles: Sequence[Tile]) -> dict[str, Column]:
        """Level-0 rectangles, cut at the slide's edge; how much of a tile is tissue and ink, and how much of its tissue folded."""
        left, width = _extent([tile.x for tile in tiles], tiles, self.grid.scale_x, self.facts.width)
        top, height = _extent([tile.y for tile in tiles], tiles, self.grid.scale_y, self.facts.height)
        tissue = np.array([tile.tissue for tile in tiles], np.float32)
        pen, folded = (self._shares(mask, tiles) for mask in (self.tissue.packed_pen, self.tissue.packed_folded))
        # A tile of which nothing is tissue has nothing folded.
        folded = np.divide(folded, tissue, out=np.zeros_like(folded), where=tissue > 0)
        return {"x": left, "y": top, "width": width, "height": height, "tissue": tissue, "pen": pen, "folded": folded}

    def _shares(self, mask: PackedMask, tiles: Sequence[Tile]) -> NDArray[np.float32]:
        """Of each whole tile."""
        if not tiles:
            return np.empty(0, np.float32)
        cell, size = self.tissue.cell_of(self.grid), tiles[0].size
        pixels = cell_sums(mask.unpacked(), cell=cell, size=size, most=(self.grid.height, self.grid.width))
        return (pixels[places_of(tiles)] / size**2).astype(np.float32)


def load() -> None:
    """Import what writing needs, which takes most of a second."""
    from pyarrow import parquet  # noqa: F401


def write(path: Path, rows: TileRows, findings: Findings, *, about: Mapping[str, str]) -> None:
    """Write the table; blocks. `about`: what stands in the file's own metadata, beside the name of the schema."""
    # Only a server that writes a table needs Arrow, which takes long to import.
    import pyarrow
    from pyarrow import parquet

    def portion(tiles: Sequence[Tile]) -> pyarrow.Table:
        columns = {**rows.places(tiles), **findings.figures(tiles), "engine": rows.engines.of(tiles)}
        arrays = {name: pyarrow.array(values, pyarrow.string() if isinstance(values, list) else None) for name, values in columns.items()}
        return pyarrow.table(arrays)

    schema = portion(()).schema.with_metadata({"lamina.schema": SCHEMA, **{f"lamina.{name}": value for name, value in about.items()}})
    # Of numbers next to none repeat.
    named = [field.name for field in schema if pyarrow.types.is_string(field.type)]
    with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=named) as writer:
        for start in range(0, len(rows.tiles), _ROWS):
            writer.write_table(portion(rows.tiles[start : start + _ROWS]).cast(schema))


def write_vectors(path: Path, rows: TileRows, vectors: Vectors, *, about: Mapping[str, str]) -> None:
    """Write the vectors beside the places of their tiles, as lists of a fixed size; blocks. `about`: as for `write`."""
    import pyarrow
    from pyarrow import parquet

    def portion(tiles: Sequence[Tile]) -> pyarrow.Table:
        arrays = {name: pyarrow.array(values) for name, values in rows.places(tiles).items()}
        values = pyarrow.array(vectors.read(tiles).reshape(-1))
        return pyarrow.table({**arrays, "embedding": pyarrow.FixedSizeListArray.from_arrays(values, vectors.features)})

    count = max(min(_ROWS, _VECTOR_BYTES // (vectors.features * vectors.dtype.itemsize)), 1)
    schema = portion(()).schema.with_metadata(
        {"lamina.schema": VECTORS_SCHEMA, **{f"lamina.{name}": value for name, value in about.items()}}
    )
    # The bytes of learned numbers hardly repeat; split by place, their exponents do.
    with parquet.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=False, use_byte_stream_split=["embedding.list.element"]
    ) as writer:
        for start in range(0, len(rows.tiles), count):
            writer.write_table(portion(rows.tiles[start : start + count]))


def _extent(starts: list[int], tiles: Sequence[Tile], scale: float, most: int) -> tuple[Column, Column]:
    first = np.array(starts, np.float64)
    size = np.array([tile.size for tile in tiles], np.float64)
    begin, end = (np.minimum(np.round(edge * scale), most).astype(np.int32) for edge in (first, first + size))
    return begin, end - begin
