"""Points of GeoJSON are written by hand, and must be what JSON's own encoder would write."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from uuid import UUID

import numpy as np

from inference_server.tasks.slides.findings import Points
from inference_server.tasks.slides.outputs import geojson

# With random ones, more than are written at a time.
PLACES = [(0.0, 0.0), (1.005, 123456.789), (99999.99, 1e-7), (7.0, 8.0), *np.random.default_rng(1).uniform(0, 1e5, (10_000, 2)).tolist()]
ANALYSED = ("nuclei", "nuclei:1", 1000, 1000)
NAME = 'Kern "hell", größer als 5 %'


def test_points_are_what_the_json_encoder_would_write(tmp_path: Path) -> None:
    measurements = {"Response (OD)": 0.1234, "100 % leer": 1e-12}
    points = Points(
        places=np.array(PLACES, np.float64),
        classification=NAME,
        colour=(1, 2, 3),
        measurements={name: np.full(len(PLACES), value) for name, value in measurements.items()},
    )
    assert len(PLACES) == geojson.write(tmp_path / "points.geojson.gz", [points], offset=(0.5, 0.25), analysed=ANALYSED)
    first = UUID(json.loads(gzip.decompress((tmp_path / "points.geojson.gz").read_bytes()))["features"][0]["id"]).int
    features = [
        {
            "type": "Feature",
            "id": str(UUID(int=first + number)),
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
