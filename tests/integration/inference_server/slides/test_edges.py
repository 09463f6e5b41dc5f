"""What is told of a slide lies on it, however its size and the analysis' pixels fit."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.tile_models import write_classifier, write_embedder, write_head, write_segmenter

# At 0.35 µm/px the analyses' pixels are 2.86 px, those of a mask with a stride twice as many: none fits.
WIDTH, HEIGHT, MPP = 701, 503, 0.35


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("analysis", ["pinkness", "colours", "judge", "stains"])
async def test_features_end_where_the_slide_does(analyses_with: Callable[..., Any], tmp_path: Path, analysis: str, stride: int) -> None:
    models = tmp_path / "models"
    write_classifier(models)
    write_embedder(models)
    write_head(models, attention_shown=0.0)
    write_segmenter(models, stride=stride, output_stride=stride)
    slide = write_svs(tmp_path / "slide.svs", paint(WIDTH, HEIGHT, tissue=(0, 0, WIDTH, HEIGHT), white=230), mpp=MPP)
    found = await analyses_with(models).run(slide, analysis=analysis)
    # As GEOS reads GeoJSON, not as we write it.
    shapes = list(shapely.from_geojson(gzip.decompress((found.folder / "detections.geojson.gz").read_bytes())).geoms)
    assert all(shape.is_valid for shape in shapes)
    corners = np.array([shape.bounds for shape in shapes])
    assert (0, 0, WIDTH, HEIGHT) == (*corners[:, :2].min(axis=0), *corners[:, 2:].max(axis=0))


async def test_candidates_lie_on_the_slide(analyses: Any, tmp_path: Path) -> None:
    nuclei = [*scattered(60, within=(10, 10, WIDTH - 10, HEIGHT - 10), apart=40), (WIDTH - 1, 200), (300, HEIGHT - 1), (WIDTH, HEIGHT)]
    picture = paint(WIDTH, HEIGHT, tissue=(0, 0, WIDTH, HEIGHT), nuclei=nuclei, radius=9)
    points = (await analyses.run(write_svs(tmp_path / "slide.svs", picture, mpp=MPP))).points
    assert len(points) > 50
    assert (points.min(axis=0) >= 0).all()
    assert (points.max(axis=0) < (WIDTH, HEIGHT)).all()
