"""Multiple-instance heads over embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from pyarrow import parquet

from inference_server.errors import ConfigurationError, NotFound
from tests.support.slides.painted import paint, write_svs
from tests.support.slides.tile_models import write_classifier, write_embedder, write_head

SCHEMA = json.loads((Path(__file__).parents[4] / "docs" / "analysis.schema.json").read_text())
# Pale tissue with one dark corner: 4 × 4 of 8 × 6 tiles.
PALE = paint(1024, 768, tissue=None)
PALE[:, :] = (215, 190, 210)
SPOTTED = PALE.copy()
SPOTTED[:512, :512] = (190, 80, 150)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_embedder(tmp_path / "models")
    return tmp_path / "models"


@pytest.mark.parametrize("batched", [False, True])
async def test_a_slide_is_judged_by_the_tiles_that_the_head_looks_at(
    analyses_with: Callable[..., Any], models: Path, tmp_path: Path, batched: bool
) -> None:
    write_head(models, batched=batched)
    ran = analyses_with(models)
    spotted = await ran.run(write_svs(tmp_path / "spotted.svs", SPOTTED), analysis="judge")
    pale = await ran.run(write_svs(tmp_path / "pale.svs", PALE), analysis="judge")

    jsonschema.validate(spotted.report, SCHEMA)
    measures = spotted.report["measures"]
    assert ("judge", "colours", "judge") == (spotted.report["analysis"], spotted.report["model"]["name"], measures["head"]["name"])
    assert ("pink", 48, 1) == (measures["class"], measures["bag_tiles"], measures["bag_step"])
    assert pytest.approx(1.0, abs=1e-6) == sum(each["probability"] for each in measures["classes"])
    assert "pale" == pale.report["measures"]["class"]


async def test_attention_is_shown_and_its_highest_ranks_are_features(
    analyses_with: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    write_head(models, attention_shown=0.7)
    found = await analyses_with(models).run(write_svs(tmp_path / "slide.svs", SPOTTED), analysis="judge")
    rows = {name: np.array(values) for name, values in parquet.read_table(found.folder / "tiles.parquet").to_pydict().items()}

    dark = (rows["x"] < 512) & (rows["y"] < 512)
    assert pytest.approx(1.0, abs=1e-5) == rows["attention"].sum()
    assert rows["attention"][dark].min() > rows["attention"][~dark].max()
    assert rows["attention_rank"][dark].min() > rows["attention_rank"][~dark].max()
    assert {"High attention"} == {each["properties"]["classification"]["name"] for each in found.features}
    shown = {tuple(each["geometry"]["coordinates"][0][0]) for each in found.features}
    assert {(x, y) for x, y, rank in zip(rows["x"], rows["y"], rows["attention_rank"], strict=True) if rank >= 0.7} == shown


async def test_a_bag_that_is_too_large_is_thinned_evenly_and_that_is_told(
    analyses_with: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    write_head(models, most_tiles=20)
    found = await analyses_with(models).run(write_svs(tmp_path / "slide.svs", SPOTTED), analysis="judge")
    measures = found.report["measures"]
    assert ("pink", 16, 3) == (measures["class"], measures["bag_tiles"], measures["bag_step"])
    assert any("every 3th tile" in note for note in found.report["notes"])
    ranks = np.array(parquet.read_table(found.folder / "tiles.parquet").column("attention_rank").to_pylist(), float)
    assert 48 - 16 == np.isnan(ranks).sum()


async def test_a_slide_without_tissue_has_no_class(analyses_with: Callable[..., Any], models: Path, tmp_path: Path) -> None:
    write_head(models)
    found = await analyses_with(models).run(write_svs(tmp_path / "blank.svs", paint(400, 300, tissue=None)), analysis="judge")
    jsonschema.validate(found.report, SCHEMA)
    assert (None, 0) == (found.report["measures"]["class"], found.report["measures"]["bag_tiles"])


async def test_a_class_needs_its_threshold(analyses_with: Callable[..., Any], models: Path, tmp_path: Path) -> None:
    write_head(models, thresholds={"pale": 1.0, "pink": 1.0})
    found = await analyses_with(models).run(write_svs(tmp_path / "slide.svs", SPOTTED), analysis="judge")
    assert found.report["measures"]["class"] is None


async def test_vectors_may_be_asked_for_too(analyses_with: Callable[..., Any], models: Path, tmp_path: Path) -> None:
    write_head(models)
    slide = write_svs(tmp_path / "slide.svs", SPOTTED)
    ran = analyses_with(models)
    alone, judged = await ran.run(slide, analysis="colours"), await ran.run(slide, analysis="judge", artifacts=("embeddings.parquet",))
    read = [parquet.read_table(found.folder / "embeddings.parquet") for found in (alone, judged)]
    assert read[0].equals(read[1])
    assert {"analysis.json", "embeddings.parquet"} == {path.name for path in judged.folder.iterdir()}


async def test_what_does_not_fit_together_is_told(analyses_with: Callable[..., Any], models: Path, tmp_path: Path) -> None:
    slide = write_svs(tmp_path / "slide.svs", PALE)
    write_classifier(models)
    write_head(models, "over_a_classifier", embedder="pinkness")
    write_head(models, "over_nothing", embedder="nosuch")
    write_head(models, "too_many_classes", classes=["a", "b", "c"])
    write_head(models, "a_hundred_tiles", tiles=100)
    (write_head(models, "in_batches") / "config.pbtxt").unlink()
    ran = analyses_with(models)
    for name, kind, message in (
        ("over_a_classifier", ConfigurationError, "needs pinkness to be a model of kind embedder"),
        ("over_nothing", NotFound, "no analysis is called nosuch"),
        ("too_many_classes", ConfigurationError, "puts out 2 values a slide, and slide.json names 3 classes"),
        ("a_hundred_tiles", ConfigurationError, "with any number of tiles"),
        ("in_batches", ConfigurationError, "Put max_batch_size: 0 into its config.pbtxt"),
    ):
        with pytest.raises(kind, match=message):
            await ran.run(slide, analysis=name)
