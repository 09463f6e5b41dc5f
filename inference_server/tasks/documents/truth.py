"""Documents whose text is known: a folder of files, each with a file of the same stem that holds its text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inference_server.errors import InvalidInput

DOCUMENTS = (".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
TRUTHS = (".csv", ".json", ".txt")
_COORDINATES = 8
_EXPECTED_JSON = 'a list of {"text": …}, {"text": …}, or {"pages": [{"lines": [{"text": …}]}]}'


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
        return KnownDocument(path=document, texts=("\n".join(_lines_of_boxes(content, truth)),), is_by_page=False)
    try:
        texts, is_by_page = _texts_of_json(json.loads(content))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{truth} does not hold a text as it is known here; expected JSON: {_EXPECTED_JSON}.") from error
    return KnownDocument(path=document, texts=texts, is_by_page=is_by_page)


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
            return tuple(_joined(page["lines"]) for page in pages), True
        case {"text": str(text)}:
            return (text,), False
        case list(parts):
            return (_joined(parts),), False
    raise TypeError


def _joined(parts: list[object]) -> str:
    texts = [part["text"] if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    return "\n".join(map(str, texts))
