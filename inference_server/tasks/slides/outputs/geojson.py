"""GeoJSON that QuPath imports (File > Import objects from file), gzipped while it is written, so that it never lies in memory whole."""

from __future__ import annotations

import functools
import gzip
import json
import math
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from inference_server.tasks.slides.findings import Shape

MEDIA_TYPE = "application/geo+json+gzip"
_FEATURES_A_WRITE = 4096
# Fast, and within a tenth of the best size for such text.
_LEVEL = 4
# QuPath wants an id on each object; ours counts, so that the same analysis writes the same bytes.
_ID_PREFIX = "6c616d69-6e61-4000-8000-"
_ID_BASE = UUID(f"{_ID_PREFIX}000000000000").int
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def write(path: Path, shapes: Iterable[Shape], *, offset: tuple[float, float]) -> int:
    """Write a FeatureCollection and return how many features it has.

    `offset`: the slide's bounds in level-0 pixels, where QuPath's coordinates begin; subtracted from each corner.
    """
    count = 0
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=raw, mtime=0) as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        pending: list[str] = []
        for shape in shapes:
            pending.append((_point if len(shape.corners) == 1 else _feature)(count, shape, offset))
            count += 1
            if len(pending) == _FEATURES_A_WRITE:
                _flush(file, pending, first=count == len(pending))
        _flush(file, pending, first=count == len(pending))
        file.write(b"]}\n")
    return count


def _flush(file: gzip.GzipFile, pending: list[str], *, first: bool) -> None:
    if pending:
        file.write((("" if first else ",") + ",".join(pending)).encode())
        pending.clear()


def _point(number: int, shape: Shape, offset: tuple[float, float]) -> str:
    """What `_feature` gives for one point, put together by hand: a slide has millions, and most of each is the same."""
    ((x, y),) = shape.corners
    return (
        f'{{"type":"Feature","id":"{_ID_PREFIX}{number:012x}",'
        f'"geometry":{{"type":"Point","coordinates":[{round(x - offset[0], 2)!r},{round(y - offset[1], 2)!r}]}},'
        f'"properties":{{"objectType":"detection","classification":{_classification(shape.classification, shape.colour)},'
        f'"measurements":{{{",".join([_measurement(name, value) for name, value in shape.measurements.items()])}}}}}}}'
    )


def _measurement(name: str, value: float) -> str:
    # What JSON's encoder writes of a float, without asking it.
    return f"{_quoted(name)}:{value!r}" if type(value) is float and math.isfinite(value) else f"{_quoted(name)}:{_compact(value)}"


@functools.cache
def _quoted(name: str) -> str:
    return _compact(name)


@functools.cache
def _classification(name: str, colour: tuple[int, int, int]) -> str:
    return _compact({"name": name, "color": list(colour)})


def _feature(number: int, shape: Shape, offset: tuple[float, float]) -> str:
    corners, *holes = ([[round(x - offset[0], 2), round(y - offset[1], 2)] for x, y in ring] for ring in (shape.corners, *shape.holes))
    single = len(corners) == 1
    feature = {
        "type": "Feature",
        "id": str(UUID(int=_ID_BASE + number)),
        "geometry": {"type": "Point", "coordinates": corners[0]}
        if single
        else {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in (corners, *holes)]},
        "properties": {
            "objectType": "detection" if single else "annotation",
            "classification": {"name": shape.classification, "color": list(shape.colour)},
            "measurements": dict(shape.measurements),
        },
    }
    return json.dumps(feature, separators=(",", ":"), ensure_ascii=False)
