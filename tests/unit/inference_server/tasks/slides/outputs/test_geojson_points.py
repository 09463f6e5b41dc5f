"""Points of GeoJSON are written by hand, and must be what JSON's own encoder would write."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from uuid import UUID

from inference_server.tasks.slides.findings import Shape
from inference_server.tasks.slides.outputs import geojson

PLACES = [(0.0, 0.0), (1.005, 123456.789), (99999.99, 1e-7), (7, 8)]
NAME = 'Kern "hell", größer'


def test_points_are_what_the_json_encoder_would_write(tmp_path: Path) -> None:
    measurements = {"Response (OD)": 0.1234, "ganz": 3, "leer": 1e-12}
    shapes = [Shape(corners=(place,), classification=NAME, colour=(1, 2, 3), measurements=measurements) for place in PLACES]
    assert len(PLACES) == geojson.write(tmp_path / "points.geojson.gz", shapes, offset=(0.5, 0.25))
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
