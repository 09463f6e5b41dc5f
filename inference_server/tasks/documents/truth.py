"""Documents whose text is known: a folder of files, each with a file of the same stem that holds its text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_server.errors import InvalidInput

DOCUMENTS = (".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".heic")
TRUTHS = (".csv", ".json", ".txt")
_COORDINATES = 8
_EXPECTED_JSON = 'a list of {"text": …}, {"text": …}, {"lines": […]}, {"words": […]}, or {"pages": [{"lines": [{"text": …}]}]}'
_MOST_PAGES = 100_000


@dataclass(frozen=True, kw_only=True)
class KnownDocument:
    """A document and its text."""

    path: Path
    # One text for each page, or one for the whole document when the file does not tell its pages apart.
    texts: tuple[str, ...]
    is_by_page: bool


def known_documents(folder: Path) -> tuple[list[KnownDocument], list[Path]]:
    """The documents of a folder that have a text beside them, and those that have none; by name. Raises `InvalidInput`."""
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder; expected one with documents ({', '.join(DOCUMENTS)}) and their texts.")
    documents = sorted(path for path in folder.iterdir() if path.suffix.lower() in DOCUMENTS)
    truths = {path: _truth_of(path) for path in documents}
    known = [_known(path, truth) for path, truth in truths.items() if truth is not None]
    if not known:
        raise InvalidInput(
            f"{folder} has no document with its text beside it; expected pairs such as 1.jpg and 1.csv "
            f"(documents end in {', '.join(DOCUMENTS)}, texts in {', '.join(TRUTHS)})."
        )
    return known, [path for path, truth in truths.items() if truth is None]


def _truth_of(document: Path) -> Path | None:
    found = [path for ending in TRUTHS if (path := document.with_suffix(ending)).is_file()]
    if len(found) > 1:
        raise InvalidInput(f"{document} has several texts ({', '.join(path.name for path in found)}); keep the right one there.")
    return found[0] if found else None


def _known(document: Path, truth: Path) -> KnownDocument:
    try:
        content = truth.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InvalidInput(f"{truth} cannot be read ({reason}); expected text in UTF-8.") from error
    if truth.suffix == ".txt":
        return KnownDocument(path=document, texts=(content,), is_by_page=False)
    if truth.suffix == ".csv":
        texts, is_by_page = _texts_of_csv(content, truth)
        return KnownDocument(path=document, texts=texts, is_by_page=is_by_page)
    try:
        texts, is_by_page = _texts_of_json(json.loads(content))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{truth} does not hold a text as it is known here; expected JSON: {_EXPECTED_JSON}.") from error
    return KnownDocument(path=document, texts=texts, is_by_page=is_by_page)


def _texts_of_csv(content: str, truth: Path) -> tuple[tuple[str, ...], bool]:
    """A table with a column `text`, and maybe one `page`; or boxes, without names of columns."""
    rows = csv.reader(io.StringIO(content))
    names = [name.strip().lower() for name in next(rows, [])]
    if "text" not in names:
        return ("\n".join(_lines_of_boxes(content, truth)),), False
    text, page = names.index("text"), names.index("page") if "page" in names else None
    pages: dict[int, list[str]] = {}
    for row in filter(None, rows):
        if len(row) <= text:
            raise InvalidInput(f"{truth}, line {rows.line_num}: has no {text + 1} columns; expected a row of {', '.join(names)}.")
        pages.setdefault(_page_number(row, page, f"{truth}, line {rows.line_num}"), []).append(row[text])
    numbers = range(1, max(pages, default=1) + 1)
    return tuple("\n".join(pages.get(number, ())) for number in numbers), page is not None


def _page_number(row: Sequence[str], column: int | None, where: str) -> int:
    if column is None:
        return 1
    told = row[column].strip() if column < len(row) else ""
    if not (told.isdecimal() and 1 <= int(told) <= _MOST_PAGES):
        raise InvalidInput(f"{where}: the page is {told!r}; expected a number from 1 on.")
    return int(told)


def _lines_of_boxes(content: str, truth: Path) -> Iterator[str]:
    # No CSV of the usual kind: the text is all that follows the eighth comma, quotes and commas included.
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        *coordinates, text = line.split(",", _COORDINATES)
        try:
            whole = len([float(coordinate) for coordinate in coordinates]) == _COORDINATES
        except ValueError:
            whole = False
        if not whole:
            raise InvalidInput(f"{truth}, line {number}: expected eight coordinates and a text, separated by commas.")
        yield text


def _texts_of_json(value: object) -> tuple[tuple[str, ...], bool]:
    match value:
        case {"pages": list(pages)} if pages:
            return tuple(map(_text_of, pages)), True
        case dict() | list():
            return (_text_of(value),), False
    raise TypeError


def _text_of(value: object) -> str:
    """Of a page, a line or a word: its text, else that of its lines or words (`form`: those of FUNSD's files)."""
    match value:
        case str(text) | {"text": str(text)}:
            return text
        case {"lines": list(parts)} | {"form": list(parts)} | list(parts):
            return "\n".join(map(_text_of, parts))
        case {"words": list(parts)}:
            return " ".join(map(_text_of, parts))
    raise TypeError
