"""GeoJSON that QuPath imports (File > Import objects from file), gzipped while it is written, so that it never lies in memory whole."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.slides.findings import Points, Shape

MEDIA_TYPE = "application/geo+json+gzip"
_FEATURES_A_WRITE = 4096
# Twice as fast as 4 for such text, and a tenth larger.
_LEVEL = 1
# QuPath wants an id on each object; ours counts, so that the same analysis writes the same bytes.
_ID_PREFIX = "6c616d69-6e61-4000-8000-"
_ID_BASE = UUID(f"{_ID_PREFIX}000000000000").int
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def write(path: Path, shapes: Iterable[Shape | Points], *, offset: tuple[float, float]) -> int:
    """Write a FeatureCollection and return how many features it has; compressed by another thread while it is made.

    `offset`: the slide's bounds in level-0 pixels, where QuPath's coordinates begin; subtracted from each corner.
    """
    count = 0
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=raw, mtime=0) as file,
        ThreadPoolExecutor(1) as compressing,
    ):
        written = compressing.submit(file.write, b'{"type":"FeatureCollection","features":[')
        for features in _portions(shapes, offset):
            text = (("," if count else "") + ",".join(features)).encode()
            count += len(features)
            # One portion waits at most.
            written.result()
            written = compressing.submit(file.write, text)
        written.result()
        file.write(b"]}\n")
    return count


def _portions(shapes: Iterable[Shape | Points], offset: tuple[float, float]) -> Iterator[list[str]]:
    """Features, some thousands at a time; none is empty."""
    count = 0
    pending: list[str] = []
    for shape in shapes:
        if isinstance(shape, Points):
            pending += _points(count + len(pending), shape, offset)
        else:
            pending.append(_feature(count + len(pending), shape, offset))
        if len(pending) >= _FEATURES_A_WRITE:
            yield pending
            count, pending = count + len(pending), []
    if pending:
        yield pending


def _points(number: int, points: Points, offset: tuple[float, float]) -> list[str]:
    """What JSON's encoder would give for each, put together by hand: a slide has millions, and most of each is the same."""
    x, y = (_numbers(_rounded(points.places[:, axis] - offset[axis])) for axis in (0, 1))
    ids = (f"{each:012x}" for each in range(number, number + len(points.places)))
    form = (
        f'{{"type":"Feature","id":"{_ID_PREFIX}%s","geometry":{{"type":"Point","coordinates":[%s,%s]}},"properties":{{'
        f'"objectType":"detection","classification":{_escaped({"name": points.classification, "color": list(points.colour)})},'
        f'"measurements":{{{",".join(f"{_escaped(name)}:%s" for name in points.measurements)}}}}}}}'
    )
    return [form % values for values in zip(ids, x, y, *map(_numbers, points.measurements.values()), strict=True)]


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # Quarters have two decimals as they are.
    exact = bool((values * 4 % 1 == 0).all())
    return values if exact else np.array([round(value, 2) for value in values.tolist()])


def _numbers(values: NDArray[np.float64]) -> Iterator[str]:
    # What JSON's encoder writes of finite floats, without asking it.
    return map(repr if np.isfinite(values).all() else _compact, values.tolist())


def _escaped(value: object) -> str:
    """JSON that stands for itself in a template."""
    return _compact(value).replace("%", "%%")


def _feature(number: int, shape: Shape, offset: tuple[float, float]) -> str:
    rings = ([[round(x - offset[0], 2), round(y - offset[1], 2)] for x, y in ring] for ring in (shape.corners, *shape.holes))
    feature = {
        "type": "Feature",
        "id": str(UUID(int=_ID_BASE + number)),
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": shape.classification, "color": list(shape.colour)},
            "measurements": dict(shape.measurements),
        },
    }
    return json.dumps(feature, separators=(",", ":"), ensure_ascii=False)
