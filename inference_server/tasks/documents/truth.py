"""Documents whose text is known: files, each with a file of the same stem that holds its text, beside it or in a folder of texts."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_server.errors import InvalidInput

DOCUMENTS = (".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".heic")
TRUTHS = (".csv", ".json", ".txt")
# Folders of documents and of their texts within one folder, as FUNSD and ICDAR's receipts have them.
_FOLDERS = (("images", "annotations"), ("img", "box"))
_COORDINATES = 8
# What Excel reads a table by, and may write, in a line before the table's own.
_TOLD_MARK = re.compile(r'"?sep=([,;\t])"?[ \t]*(?=\n|$)')
# What the column of words or lines may be called.
_TEXT_COLUMNS = ("text", "word", "transcription")
_EXPECTED_JSON = 'a list of {"text": …}, {"text": …}, {"lines": […]}, {"words": […]}, or {"pages": [{"lines": [{"text": …}]}]}'
_EXPECTED_ENCODING = "expected text in UTF-8, or in UTF-16 with a BOM"
_MOST_PAGES = 100_000


@dataclass(frozen=True, kw_only=True)
class KnownDocument:
    """A document and its text."""

    path: Path
    # One text for each page, or one for the whole document when the file does not tell its pages apart.
    texts: tuple[str, ...]
    is_by_page: bool
    # Whether pages without text may be left out at its end, as in a table of words.
    may_end_blank: bool = False


def known_documents(folder: Path) -> tuple[list[KnownDocument], list[Path]]:
    """The documents of a folder that have a text, and those that have none; by name. Raises `InvalidInput`.

    Documents and texts may lie in two folders of it: `images` and `annotations`, or `img` and `box`.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder; expected one with documents ({', '.join(DOCUMENTS)}) and their texts.")
    pairs = [(folder / documents, folder / texts) for documents, texts in _FOLDERS]
    documents, texts = next(((first, second) for first, second in pairs if first.is_dir() and second.is_dir()), (folder, folder))
    truths = _truths_of(_files(documents, DOCUMENTS), _files(texts, TRUTHS))
    known = [_known(path, truth) for path, truth in truths.items() if truth is not None]
    if not known:
        raise InvalidInput(
            f"{folder} has no document with its text beside it; expected pairs such as 1.jpg and 1.csv "
            f"(documents end in {', '.join(DOCUMENTS)}, texts in {', '.join(TRUTHS)}), or folders {_named(_FOLDERS)}."
        )
    return known, [path for path, truth in truths.items() if truth is None]


def _named(folders: Sequence[tuple[str, str]]) -> str:
    return " or ".join(f"`{documents}` and `{texts}`" for documents, texts in folders)


def _files(folder: Path, endings: Sequence[str]) -> list[Path]:
    """Those of such endings, by name, without hidden ones, which some systems leave beside each file."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in endings and path.is_file() and path.name[0] != ".")


def _truths_of(documents: Sequence[Path], texts: Sequence[Path]) -> dict[Path, Path | None]:
    by_stem: dict[str, list[Path]] = {}
    for text in texts:
        by_stem.setdefault(text.stem, []).append(text)
    truths = {document: by_stem.get(document.stem, []) for document in documents}
    for document, found in truths.items():
        if len(found) > 1:
            raise InvalidInput(f"{document} has several texts ({', '.join(path.name for path in found)}); keep the right one there.")
    return {document: found[0] if found else None for document, found in truths.items()}


def _known(document: Path, truth: Path) -> KnownDocument:
    try:
        content = truth.read_text(encoding=_encoding_of(truth))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InvalidInput(f"{truth} cannot be read ({reason}); {_EXPECTED_ENCODING}.") from error
    if "\0" in content:
        # Read as UTF-8, Latin text in UTF-16 has one for each of its characters.
        raise InvalidInput(f"{truth} cannot be read (it holds zero bytes, as UTF-16 without a BOM does); {_EXPECTED_ENCODING}.")
    ending = truth.suffix.lower()
    if ending == ".txt":
        # ICDAR's receipts have their boxes in such files too.
        text = "\n".join(_lines_of_boxes(content, truth)) if _has_boxes(content) else content
        return KnownDocument(path=document, texts=(text,), is_by_page=False)
    if not _TOLD_MARK.sub("", content, count=1).strip():
        raise InvalidInput(f"{truth} is empty; expected the document's text. That of a blank page is an empty {truth.stem}.txt.")
    if ending == ".csv":
        texts, is_by_page = _texts_of_csv(content, truth)
        return KnownDocument(path=document, texts=texts, is_by_page=is_by_page, may_end_blank=is_by_page)
    try:
        texts, is_by_page = _texts_of_json(json.loads(content))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(f"{truth} does not hold a text as it is known here; expected JSON: {_EXPECTED_JSON}.") from error
    return KnownDocument(path=document, texts=texts, is_by_page=is_by_page)


def _encoding_of(truth: Path) -> str:
    """As the file's first bytes tell: what Windows' programs call Unicode is UTF-16, which always begins with a mark."""
    with truth.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _texts_of_csv(content: str, truth: Path) -> tuple[tuple[str, ...], bool]:
    """A table with a column of words or lines, and maybe one `page`; or boxes, without names of columns."""
    told = _TOLD_MARK.match(content)
    # Left blank, that line still counts in what is told of others.
    content = content[told.end() :] if told else content
    first = content.lstrip().split("\n", 1)[0]
    mark = told[1] if told else next((mark for mark in ",;\t" if mark in first), ",")
    rows = csv.reader(io.StringIO(content), delimiter=mark, strict=True)
    try:
        names = [name.strip().lower() for name in next(filter(None, rows), [])]
        column = next((name for name in _TEXT_COLUMNS if name in names), None)
        if column is None:
            return ("\n".join(_lines_of_boxes(content, truth)),), False
        text, page = names.index(column), names.index("page") if "page" in names else None
        pages: dict[int, list[str]] = {}
        for row in filter(None, rows):
            if len(row) <= text:
                raise InvalidInput(f"{truth}, line {rows.line_num}: has no {text + 1} columns; expected a row of {', '.join(names)}.")
            if any(row[len(names) :]):
                raise InvalidInput(
                    f"{truth}, line {rows.line_num}: has more columns than {', '.join(names)}; put texts with commas in quotes."
                )
            pages.setdefault(_page_number(row, page, f"{truth}, line {rows.line_num}"), []).append(row[text])
    except csv.Error as error:
        raise InvalidInput(f"{truth}, line {rows.line_num}: is no CSV ({error}); look for a quotation mark that is not closed.") from error
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
        if not _are_coordinates(coordinates):
            raise InvalidInput(
                f"{truth}, line {number}: expected eight coordinates and a text, separated by commas; "
                f"or a first line with names of columns, one of them {' or '.join(_TEXT_COLUMNS)}."
            )
        yield text


def _has_boxes(content: str) -> bool:
    lines = [line for line in content.splitlines() if line.strip()]
    return bool(lines) and all(_are_coordinates(line.split(",", _COORDINATES)[:-1]) for line in lines)


def _are_coordinates(parts: Sequence[str]) -> bool:
    try:
        return len([float(part) for part in parts]) == _COORDINATES
    except ValueError:
        return False


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
        # In FUNSD's files an entry without text may have words.
        case {"text": "", "words": list(parts)}:
            return " ".join(map(_text_of, parts))
        case str(text) | {"text": str(text)}:
            return text
        case {"lines": list(parts)} | {"form": list(parts)} | list(parts):
            return "\n".join(map(_text_of, parts))
        case {"words": list(parts)}:
            return " ".join(map(_text_of, parts))
    raise TypeError
