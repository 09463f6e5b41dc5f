"""Lines of text as a head and a body of a frame: texts in JSON, polygons as float32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from inference_server.tasks.documents.pdf.wire import frame
from inference_server.tasks.documents.values import Line, PageResult, TextLayer, Word

# A line or a word: four corners of x and y.
_CORNERS = (4, 2)


def packed_lines(lines: Iterable[Line]) -> tuple[list[Any], bytes]:
    """What `lines_of` makes lines of again, each polygon bit by bit the same."""
    heads: list[Any] = []
    quads = []
    for line in lines:
        words = [(word.text, word.confidence, word.read_text) for word in line.words]
        heads.append((line.text, line.confidence, words))
        quads += [line.polygon, *(word.polygon for word in line.words)]
    return heads, np.asarray(quads, np.float32).tobytes()


def lines_of(heads: Sequence[Any], body: bytes) -> tuple[Line, ...]:
    """The lines that were packed. Raises `ValueError`, or its like, where they are none."""
    quads = iter(np.frombuffer(body, np.float32).reshape(-1, *_CORNERS))
    return tuple(_line(head, quads) for head in heads)


def packed_page(page: PageResult) -> bytes:
    """A frame with the lines of a page, for `lay_over`."""
    heads, body = packed_lines(page.lines)
    return frame({"page": page.page_number, "size": (page.width, page.height), "lines": heads}, len(body)) + body


def packed_layer(layer: TextLayer) -> tuple[dict[str, Any], bytes]:
    """What `layer_of` makes a layer of again."""
    heads, body = packed_lines(layer.lines)
    return {"lines": heads, "size": (layer.width, layer.height), "sound": layer.is_sound, "rotation": layer.rotation_degrees}, body


def layer_of(head: Any, body: bytes) -> TextLayer:
    """The layer that was packed. Raises `ValueError`, or its like, where it is none."""
    width, height = map(int, head["size"])
    rotation, lines = int(head["rotation"]), lines_of(head["lines"], body)
    return TextLayer(lines=lines, width=width, height=height, is_sound=bool(head["sound"]), rotation_degrees=rotation)


def _line(head: Any, quads: Any) -> Line:
    text, confidence, words = head
    polygon = next(quads)
    return Line(text=str(text), confidence=float(confidence), polygon=polygon, words=tuple(_word(word, next(quads)) for word in words))


def _word(head: Any, polygon: Any) -> Word:
    text, confidence, read_text = head
    return Word(text=str(text), confidence=float(confidence), polygon=polygon, read_text=str(read_text))
