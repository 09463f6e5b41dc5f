"""Tile embedders of the repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from pyarrow import parquet

from inference_server.errors import ConfigurationError
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.tile_models import write_embedder

SCHEMA = json.loads((Path(__file__).parents[4] / "docs" / "analysis.schema.json").read_text())
# At 0.5 µm/px; tiles of 64 px at 1 µm/px are 128 px of it.
PICTURE = paint(1024, 768, tissue=(0, 0, 640, 768))
PICTURE[512:, :640] = (150, 60, 120)


@pytest.mark.parametrize("precision", ["float32", "float16"])
async def test_there_is_one_vector_a_tile_beside_its_place(analyses_with: Callable[..., Any], tmp_path: Path, precision: str) -> None:
    write_embedder(tmp_path / "models", precision=precision)
    found = await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", PICTURE), analysis="colours")
    jsonschema.validate(found.report, SCHEMA)

    read = parquet.read_table(found.folder / "embeddings.parquet")
    name = {"float32": "float", "float16": "halffloat"}[precision]
    assert f"fixed_size_list<element: {name}>[4]" == str(read.schema.field("embedding").type)
    assert found.result.tiles_analyzed == read.num_rows == 5 * 6
    vectors = np.array(read.column("embedding").to_pylist(), np.float64)
    for x, y, vector in zip(read.column("x").to_pylist(), read.column("y").to_pylist(), vectors, strict=True):
        expected = PICTURE[y : y + 128, x : x + 128].mean(axis=(0, 1)) / 255
        assert pytest.approx([*expected, 1.0], abs=0.01) == vector
    assert {b"lamina.schema": b"lamina.slide-embeddings/1", b"lamina.model": b"colours:1"}.items() <= read.schema.metadata.items()


async def test_tiles_unlike_the_others_stand_out(analyses_with: Callable[..., Any], tmp_path: Path) -> None:
    write_embedder(tmp_path / "models")
    found = await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", PICTURE), analysis="colours")
    rows = parquet.read_table(found.folder / "tiles.parquet").to_pydict()
    below = np.array(rows["y"]) >= 512
    distances = np.array(rows["distance"])
    assert distances[below].min() > distances[~below].max()
    assert distances.mean() == pytest.approx(found.report["measures"]["mean_distance"], abs=1e-6)
    assert len(found.features) == len(distances)


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
async def test_the_colours_of_stains_are_brought_to_the_references_first(
    analyses_with: Callable[..., Any], tmp_path: Path, method: str
) -> None:
    write_embedder(tmp_path / "models", "plain")
    write_embedder(tmp_path / "models", "normalised", stain={"method": method})
    ran = analyses_with(tmp_path / "models")
    picture = paint(1024, 768, tissue=(0, 0, 640, 768), nuclei=scattered(400, within=(20, 20, 620, 740), apart=14), noise=2.0)
    # One section, stained for longer and for shorter.
    stained = [(245 * (np.minimum(picture, 245) / 245.0) ** amount).round().astype(np.uint8) for amount in (2.2, 1.5)]
    slides = [write_svs(tmp_path / f"{number}.svs", each) for number, each in enumerate(stained)]

    async def differ(analysis: str) -> float:
        one, other = [parquet.read_table((await ran.run(slide, analysis=analysis)).folder / "embeddings.parquet") for slide in slides]
        return float(np.abs(np.array(one.column("embedding").to_pylist()) - np.array(other.column("embedding").to_pylist())).mean())

    assert await differ("normalised") < 0.3 * await differ("plain")


async def test_a_blank_slide_has_no_vectors(analyses_with: Callable[..., Any], tmp_path: Path) -> None:
    write_embedder(tmp_path / "models", stain={"method": "macenko"})
    slide = write_svs(tmp_path / "blank.svs", paint(400, 300, tissue=None))
    found = await analyses_with(tmp_path / "models").run(slide, analysis="colours")
    jsonschema.validate(found.report, SCHEMA)
    assert 0 == parquet.read_table(found.folder / "embeddings.parquet").num_rows


async def test_vectors_of_another_length_than_the_manifests_are_refused(analyses_with: Callable[..., Any], tmp_path: Path) -> None:
    write_embedder(tmp_path / "models", features=5)
    with pytest.raises(ConfigurationError, match=r"colours puts out \[4\] a tile; a vector of 5 was expected"):
        await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", PICTURE), analysis="colours")


@pytest.mark.parametrize("value", [200_000, -1e6])
async def test_a_value_beyond_float16_is_refused_and_the_way_out_told(
    analyses_with: Callable[..., Any], tmp_path: Path, value: float
) -> None:
    slide = write_svs(tmp_path / "slide.svs", PICTURE)
    # The vector's first numbers are about so much.
    write_embedder(tmp_path / "half", precision="float16", scale=abs(value) / 255, std=[1, 1, 1], mean=[0, 0, 2 * max(-value, 0)])
    with pytest.raises(
        ConfigurationError, match=r"colours puts out -?[0-9.e+]+, and float16 holds ±65504 at most. Say precision float32 in"
    ):
        await analyses_with(tmp_path / "half").run(slide, analysis="colours")
    write_embedder(tmp_path / "single", scale=abs(value) / 255)
    assert (await analyses_with(tmp_path / "single").run(slide, analysis="colours")).report["measures"]["mean_norm"] > 65_504
