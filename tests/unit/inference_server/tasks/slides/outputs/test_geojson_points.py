"""Points of GeoJSON are written by hand, and must be what JSON's own encoder would write."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from uuid import UUID

import numpy as np

from inference_server.tasks.slides.findings import Points, Shape
from inference_server.tasks.slides.outputs import geojson

PLACES = [(0.0, 0.0), (1.005, 123456.789), (99999.99, 1e-7), (7, 8)]
NAME = 'Kern "hell", größer als 5 %'


def test_points_are_what_the_json_encoder_would_write(tmp_path: Path) -> None:
    measurements = {"Response (OD)": 0.1234, "100 % leer": 1e-12}
    points = Points(
        places=np.array(PLACES, np.float64),
        classification=NAME,
        colour=(1, 2, 3),
        measurements={name: np.full(len(PLACES), value) for name, value in measurements.items()},
    )
    assert len(PLACES) == geojson.write(tmp_path / "points.geojson.gz", [points], offset=(0.5, 0.25))
    features = [
        {
            "type": "Feature",
            "id": str(UUID(int=UUID("6c616d69-6e61-4000-8000-000000000000").int + number)),
            "geometry": {"type": "Point", "coordinates": [round(x - 0.5, 2), round(y - 0.25, 2)]},
            "properties": {
                "objectType": "detection",
                "classification": {"name": NAME, "color": [1, 2, 3]},
                "measurements": measurements,
            },
        }
        for number, (x, y) in enumerate(PLACES)
    ]
    expected = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"), ensure_ascii=False) + "\n"
    assert expected == gzip.decompress((tmp_path / "points.geojson.gz").read_bytes()).decode()


def test_points_together_are_what_they_are_one_by_one(tmp_path: Path) -> None:
    places = np.random.default_rng(1).uniform(0, 1e5, (10_000, 2))
    strengths = np.linspace(0, 1, len(places))
    together = Points(places=places, classification=NAME, colour=(1, 2, 3), measurements={"a": strengths})
    alone = [
        Shape(corners=((x, y),), classification=NAME, colour=(1, 2, 3), measurements={"a": strength})
        for (x, y), strength in zip(places.tolist(), strengths.tolist(), strict=True)
    ]
    for name, shapes in (("together", [together]), ("alone", alone)):
        assert len(places) == geojson.write(tmp_path / name, shapes, offset=(0.1, 0.2))
    assert gzip.decompress((tmp_path / "alone").read_bytes()) == gzip.decompress((tmp_path / "together").read_bytes())
