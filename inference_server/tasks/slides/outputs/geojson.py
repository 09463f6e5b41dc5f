"""GeoJSON that QuPath imports (File > Import objects from file), gzipped while it is written, so that it never lies in memory whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from inference_server.tasks.slides.findings import Points, Shape
from inference_server.tasks.slides.outputs.number_text import Text, fields, hexadecimals, json_numbers, rounded, without_gaps

MEDIA_TYPE = "application/geo+json+gzip"
# Polygons that are put together at once, and their measurements.
_SHAPES, _MEASUREMENTS = 1024, 2**17
# Levels above it make such text no smaller; a window of so many bits stands for a stream with the head and the tail of gzip.
_LEVEL, _GZIP = 1, 16 + isal_zlib.MAX_WBITS
# QuPath wants an id on each object, another than all others that an image has (RFC 9562, version 8). Ours have in common what was
# analysed and how, and count from there, so that the same analysis writes the same text, and another one's stand beside them.
_ID_DIGITS = 12
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def write(path: Path, shapes: Iterable[Shape | Points], *, offset: tuple[float, float], analysed: Sequence[str | int]) -> int:
    """Write a FeatureCollection and return how many features it has.

    `offset`: the slide's bounds in level-0 pixels, where QuPath's coordinates begin; subtracted from each corner. `analysed`: what
    tells this analysis from others that may be imported beside it; objects have ids of their own by it.
    """
    count, ids = 0, _ids(analysed)
    packer = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
    with path.open("wb") as file:
        file.write(packer.compress(b'{"type":"FeatureCollection","features":['))
        for some in _together(shapes):
            features, text = _points(ids, count, some, offset) if isinstance(some, Points) else _polygons(ids, count, some, offset)
            file.write(packer.compress(text if count else text[1:]))
            count += features
        file.write(packer.compress(b"]}\n") + packer.flush())
    return count


def _ids(analysed: Sequence[str | int]) -> str:
    """How the ids of all features begin."""
    digest = hashlib.sha256(_compact(list(analysed)).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-8{digest[12:15]}-8{digest[15:18]}-"


def _together(shapes: Iterable[Shape | Points]) -> Iterator[Points | list[Shape]]:
    """Points as they are, and polygons of the same measurements some at a time."""
    pending: list[Shape] = []
    for shape in shapes:
        if pending and (isinstance(shape, Points) or _full(pending) or list(shape.measurements) != list(pending[0].measurements)):
            yield pending
            pending = []
        if isinstance(shape, Shape):
            pending.append(shape)
        elif len(shape.places):
            yield shape
    if pending:
        yield pending


def _full(shapes: list[Shape]) -> bool:
    return len(shapes) >= _SHAPES or len(shapes) * len(shapes[0].measurements) >= _MEASUREMENTS


def _points(ids: str, number: int, points: Points, offset: tuple[float, float]) -> tuple[int, bytes]:
    """How many, and what JSON's encoder would give for each, a comma before it: a slide has millions, and most of each is the same."""
    count = len(points.places)
    x, y = (json_numbers(rounded(points.places[:, axis] - offset[axis], 2)) for axis in (0, 1))
    values = np.array(list(points.measurements.values()), np.float64).reshape(len(points.measurements), count)
    parts = (
        f',{{"type":"Feature","id":"{ids}',
        hexadecimals(np.arange(number, number + count), _ID_DIGITS),
        '","geometry":{"type":"Point","coordinates":[',
        x,
        ",",
        y,
        f"]}},{_properties('detection', points.classification, points.colour)}",
        _measurements(list(points.measurements), values.T),
        "}}}",
    )
    return count, without_gaps(_side_by_side((count,), parts))


def _polygons(ids: str, number: int, shapes: Sequence[Shape], offset: tuple[float, float]) -> tuple[int, bytes]:
    """As `_points`, of polygons with the same measurements."""
    values = np.array([list(shape.measurements.values()) for shape in shapes], np.float64)
    texts = _measurements(list(shapes[0].measurements), values)
    return len(shapes), b"".join(
        b"%b%b}}}" % (_polygon(ids, number + index, shape, offset).encode(), without_gaps(text))
        for index, (shape, text) in enumerate(zip(shapes, texts, strict=True))
    )


def _polygon(ids: str, number: int, shape: Shape, offset: tuple[float, float]) -> str:
    """All that stands before its measurements."""
    rings = ([[round(x - offset[0], 2), round(y - offset[1], 2)] for x, y in ring] for ring in (shape.corners, *shape.holes))
    geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]}
    properties = _properties("annotation", shape.classification, shape.colour)
    return f',{{"type":"Feature","id":"{ids}{number:0{_ID_DIGITS}x}","geometry":{_compact(geometry)},{properties}'


@lru_cache(maxsize=256)
def _properties(kind: str, classification: str, colour: tuple[int, int, int]) -> str:
    """Up to their measurements."""
    told = _compact({"name": classification, "color": list(colour)})
    return f'"properties":{{"objectType":"{kind}","classification":{told},"measurements":{{'


def _measurements(names: Sequence[str], values: NDArray[np.float64]) -> Text:
    """The measurements of features × names, a feature's in one field."""
    named = fields([f"{',' if index else ''}{_compact(name)}:" for index, name in enumerate(names)])
    numbers = json_numbers(values)
    return _side_by_side(values.shape, (named, numbers)).reshape(len(values), -1)


def _side_by_side(shape: tuple[int, ...], parts: Sequence[str | Text]) -> Text:
    """In one field for each of so many: texts that all have, and those of each."""
    columns = [fields([part]) if isinstance(part, str) else part for part in parts]
    ends = list(accumulate(column.shape[-1] for column in columns))
    text = np.empty((*shape, ends[-1]), np.uint8)
    for column, end in zip(columns, ends, strict=True):
        text[..., end - column.shape[-1] : end] = column
    return text
