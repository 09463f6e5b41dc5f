"""All that is known, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from inference_server.tasks.documents.values import DocumentSummary, KeyField, Line, PageResult, Word


class JsonWriter:
    """`{"pages": […], "page_count": …, …}`: the pages one after the other, then the summary's figures."""

    def __init__(self) -> None:
        self._pages = 0

    def page(self, page: PageResult) -> Iterable[bytes]:
        """One page, on a line of its own."""
        self._pages += 1
        return [b'{"pages": [\n' if self._pages == 1 else b",\n", _json(_page(page))]

    def end(self, summary: DocumentSummary) -> Iterable[bytes]:
        """The summary, in the same object."""
        return [b"],\n" if self._pages else b'{"pages": [],\n', _json(asdict(summary))[1:], b"\n"]

    def close(self) -> None:
        """Nothing is held."""


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def _page(page: PageResult) -> dict[str, Any]:
    told: dict[str, Any] = {
        "page_number": page.page_number,
        "width": page.width,
        "height": page.height,
        "rotation_degrees": page.rotation_degrees,
        "text": page.text,
        "text_source": page.source,
        "lines": [{**_piece(line), "words": [_word(word) for word in line.words]} for line in page.lines],
        "fields": [{"label": one.label, "value": one.value, **_place(one)} for one in page.fields],
    }
    if page.quality:
        told["quality"] = {name: value if value is None else round(value, 4) for name, value in asdict(page.quality).items()}
    return {**told, "error": page.error} if page.error else told


def _piece(piece: Line | Word) -> dict[str, Any]:
    return {"text": piece.text, **_place(piece)}


def _word(word: Word) -> dict[str, Any]:
    return {**_piece(word), "read_text": word.read_text} if word.read_text else _piece(word)


def _place(piece: Line | Word | KeyField) -> dict[str, Any]:
    polygon = [[round(x, 1), round(y, 1)] for x, y in piece.polygon.tolist()]
    return {"confidence": round(piece.confidence, 4), "polygon": polygon}
