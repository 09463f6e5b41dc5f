"""Features as QuPath imports them."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import shapely.geometry

from inference_server.tasks.slides.findings import Shape
from inference_server.tasks.slides.outputs import geojson

SQUARE = ((10.0, 20.0), (40.0, 20.0), (40.0, 60.0), (10.0, 60.0))
HOLE = ((20.0, 30.0), (30.0, 30.0), (30.0, 40.0), (20.0, 40.0))


def test_polygons_have_their_holes_and_begin_where_the_slides_bounds_do(tmp_path: Path) -> None:
    shape = Shape(corners=SQUARE, holes=(HOLE,), classification="tumour", colour=(1, 2, 3), measurements={"Area": 1100.0})
    assert 1 == geojson.write(tmp_path / "found", [shape], offset=(5.0, 10.0))
    (feature,) = json.loads(gzip.decompress((tmp_path / "found").read_bytes()))["features"]
    polygon = shapely.geometry.shape(feature["geometry"])
    assert polygon.is_valid
    assert ((5.0, 10.0, 35.0, 50.0), 1100.0, 1) == (polygon.bounds, polygon.area, len(polygon.interiors))
    assert "annotation" == feature["properties"]["objectType"]


def test_a_file_of_many_features_never_lies_in_memory_whole(tmp_path: Path) -> None:
    shape = Shape(corners=SQUARE, classification="tile", colour=(1, 2, 3), measurements={})

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            geojson.write(tmp_path / "found", (shape for _ in range(count)), offset=(0.0, 0.0))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(40_000) < 1.2 * peak(10_000)
