"""Features as QuPath imports them."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from uuid import UUID

import numpy as np
import shapely.geometry

from inference_server.tasks.slides.findings import Points, Shape
from inference_server.tasks.slides.outputs import geojson

ANALYSED = ("tumour", "tumour:1", 4000, 3000)
SQUARE = ((10.0, 20.0), (40.0, 20.0), (40.0, 60.0), (10.0, 60.0))
HOLE = ((20.0, 30.0), (30.0, 30.0), (30.0, 40.0), (20.0, 40.0))


def test_polygons_have_their_holes_and_begin_where_the_slides_bounds_do(tmp_path: Path) -> None:
    shape = Shape(corners=SQUARE, holes=(HOLE,), classification="tumour", colour=(1, 2, 3), measurements={"Area": 1100.0})
    assert 1 == geojson.write(tmp_path / "found", [shape], offset=(5.0, 10.0), analysed=ANALYSED)
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
            geojson.write(tmp_path / "found", (shape for _ in range(count)), offset=(0.0, 0.0), analysed=ANALYSED)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(12_000) < 1.2 * peak(3_000)


def test_what_several_analyses_found_may_stand_beside_each_other_in_one_image(tmp_path: Path) -> None:
    shape = Shape(corners=SQUARE, classification="tile", colour=(1, 2, 3), measurements={})
    point = Points(places=np.array([[1.0, 2.0]]), classification="point", colour=(4, 5, 6), measurements={})

    def ids(*analysed: str | int) -> set[str]:
        geojson.write(tmp_path / "found", [shape, point], offset=(0.0, 0.0), analysed=analysed)
        return {feature["id"] for feature in json.loads(gzip.decompress((tmp_path / "found").read_bytes()))["features"]}

    assert ids(*ANALYSED) == ids(*ANALYSED)
    analyses = (ANALYSED, ("stroma", "tumour:1", 4000, 3000), ("tumour", "tumour:2", 4000, 3000), ("tumour", "tumour:1", 4000, 3001))
    assert 2 * len(analyses) == len(set().union(*(ids(*analysed) for analysed in analyses)))


def test_features_of_all_kinds_are_numbered_on_and_keep_their_own_measurements(tmp_path: Path) -> None:
    """Points and polygons, with other names of measurements or none, one after the other."""
    names: list[tuple[str, ...]] = [("p(a)", "p(b)"), ("p(a)", "p(b)"), ("p(b)", "p(a)"), (), ("p(a)",)]
    values = (0.25, 0.000012)
    polygons = [
        Shape(corners=SQUARE, classification="tile", colour=(1, 2, 3), measurements=dict(zip(each, values, strict=False))) for each in names
    ]
    points = Points(places=np.array([[1.0, 2.0], [3.5, 4.25]]), classification="point", colour=(4, 5, 6), measurements={})
    nothing = Points(places=np.empty((0, 2)), classification="point", colour=(4, 5, 6), measurements={"p(a)": np.empty(0)})
    assert 7 == geojson.write(
        tmp_path / "found", [nothing, *polygons[:3], points, *polygons[3:], nothing], offset=(0.0, 0.0), analysed=ANALYSED
    )
    features = json.loads(gzip.decompress((tmp_path / "found").read_bytes()))["features"]
    assert [f"{number:012x}" for number in range(7)] == [feature["id"][-12:] for feature in features]
    assert [8] * 7 == [UUID(feature["id"]).version for feature in features]
    found = [tuple(feature["properties"]["measurements"].items()) for feature in features]
    told = [tuple(zip(each, values, strict=False)) for each in names]
    assert [*told[:3], (), (), *told[3:]] == found


def test_many_measurements_are_what_the_json_encoder_would_write(tmp_path: Path) -> None:
    """A classifier of a thousand classes, most of them next to impossible."""
    measurements = {f"p(class {number})": round(1 / (number + 1) ** 2, 6) for number in range(1000)}
    shape = Shape(corners=SQUARE, classification="tile", colour=(1, 2, 3), measurements=measurements)
    assert 300 == geojson.write(tmp_path / "found", [shape] * 300, offset=(0.0, 0.0), analysed=ANALYSED)
    text = gzip.decompress((tmp_path / "found").read_bytes()).decode()
    assert 300 == text.count(json.dumps(measurements, separators=(",", ":")))


def test_the_same_features_are_the_same_bytes(tmp_path: Path) -> None:
    shape = Shape(corners=SQUARE, classification="tile", colour=(1, 2, 3), measurements={"Area": 1.5})
    for name in ("one", "two"):
        geojson.write(tmp_path / name, [shape] * 5000, offset=(0.0, 0.0), analysed=ANALYSED)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
