"""Rows of a catalogue of laboratory tests: the built-in one's and those of an official Loinc.csv."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from inference_server.errors import InvalidCatalogue
from inference_server.tasks.labs.catalogue.axes import from_long_name

_TEXT_COLUMNS = ("code", "component", "property", "time_aspect", "system", "scale", "method", "long_common_name", "short_name", "category")
_LIST_COLUMNS = ("units", "english_names", "indonesian_names")
COLUMNS = (*_TEXT_COLUMNS, *_LIST_COLUMNS, "rank")
_OFFICIAL = {
    "LOINC_NUM": "code",
    "COMPONENT": "component",
    "PROPERTY": "property",
    "TIME_ASPCT": "time_aspect",
    "SYSTEM": "system",
    "SCALE_TYP": "scale",
    "METHOD_TYP": "method",
    "LONG_COMMON_NAME": "long_common_name",
    "SHORTNAME": "short_name",
}
_CODE = re.compile(r"\d{1,7}-\d")
_LABORATORY_CLASS = "1"
_WITHDRAWN = frozenset({"DEPRECATED", "DISCOURAGED"})
# Longest text of one field; a longer one is not a row of such a table.
_LONGEST_FIELD = 1_000_000
_MOST_RELATED_NAMES = 60

csv.field_size_limit(_LONGEST_FIELD)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One code of the catalogue; texts are empty and tuples too where nothing is known."""

    code: str
    component: str
    property: str = ""
    time_aspect: str = ""
    system: str = ""
    scale: str = ""
    method: str = ""
    long_common_name: str = ""
    short_name: str = ""
    # LOINC's CLASS, such as CHEM or HEM/BC.
    loinc_class: str = ""
    # One of `categorise.CATEGORIES`.
    category: str = ""
    units: tuple[str, ...] = ()
    english_names: tuple[str, ...] = ()
    indonesian_names: tuple[str, ...] = ()
    # 1 is the most common test; 0 when nothing is known.
    rank: int = 0


@dataclass(kw_only=True)
class Skipped:
    """Rows of an official table that were left out, by reason."""

    # Codes that LOINC deprecates or discourages.
    withdrawn_codes: set[str] = field(default_factory=set)
    not_laboratory: int = 0
    unnamed: int = 0

    @property
    def withdrawn(self) -> int:
        """How many codes are withdrawn."""
        return len(self.withdrawn_codes)

    @property
    def total(self) -> int:
        """All of them."""
        return self.withdrawn + self.not_laboratory + self.unnamed


def read_entries(path: Path) -> list[Entry]:
    """Read a table with the built-in catalogue's columns. Raises `InvalidCatalogue`."""
    return [_entry(row) for row in _rows(path, required=_TEXT_COLUMNS[:8])]


def write_entries(path: Path, entries: list[Entry]) -> None:
    """Write a table that `read_entries` reads, with LOINC's class as one more column."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, "loinc_class"])
        for entry in entries:
            values = [getattr(entry, column) for column in [*COLUMNS, "loinc_class"]]
            writer.writerow(["|".join(value) if isinstance(value, tuple) else value for value in values])


def read_official(path: Path, skipped: Skipped, progress: Callable[[int], None]) -> list[Entry]:
    """Read a Loinc.csv: active laboratory codes only; `skipped` is filled. Raises `InvalidCatalogue`."""
    entries: dict[str, Entry] = {}
    for number, row in enumerate(_rows(path, required=("LOINC_NUM", "COMPONENT", "SYSTEM", "LONG_COMMON_NAME")), 1):
        if number % 1000 == 0:
            progress(number)
        if row.get("STATUS", "").strip().upper() in _WITHDRAWN:
            skipped.withdrawn_codes.add(row["LOINC_NUM"].strip())
        elif row.get("CLASSTYPE", "").strip() not in ("", _LABORATORY_CLASS):
            skipped.not_laboratory += 1
        elif (entry := _official_entry(row)) is None:
            skipped.unnamed += 1
        else:
            entries[entry.code] = entry
    return list(entries.values())


def read_replacements(path: Path) -> dict[str, str]:
    """Deprecated code → what stands for it, of a release's MapTo.csv; none when there is no such file. Raises `InvalidCatalogue`.

    Codes that several may stand for are left out: a person must choose.
    """
    if not path.is_file():
        return {}
    found: dict[str, set[str]] = {}
    for row in _rows(path, required=("LOINC", "MAP_TO")):
        if _CODE.fullmatch(row["LOINC"].strip()) and _CODE.fullmatch(row["MAP_TO"].strip()):
            found.setdefault(row["LOINC"].strip(), set()).add(row["MAP_TO"].strip())
    return {code: targets.pop() for code, targets in found.items() if len(targets) == 1}


def count_rows(path: Path) -> int:
    """Lines after the header, for a progress bar: an upper bound of the rows."""
    with path.open("rb") as file:
        return max(sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b"")) - 1, 0)


def _official_entry(row: dict[str, str]) -> Entry | None:
    values = {ours: row.get(theirs, "").strip() for theirs, ours in _OFFICIAL.items()}
    if not _CODE.fullmatch(values["code"]) or not (values["component"] or values["long_common_name"]):
        return None
    if not values["component"]:
        values |= {key: value for key, value in from_long_name(values["long_common_name"]).items() if not values[key]}
    values["long_common_name"] = values["long_common_name"] or _long_name(values)
    units = (row.get("EXAMPLE_UCUM_UNITS", "") or row.get("EXAMPLE_UNITS", "")).split(";")
    names = (row.get("CONSUMER_NAME", ""), row.get("DisplayName", ""), *row.get("RELATEDNAMES2", "").split(";")[:_MOST_RELATED_NAMES])
    return Entry(
        **values,  # type: ignore[arg-type]  # mypy sees one value type for all fields
        loinc_class=row.get("CLASS", "").strip(),
        units=_cleaned(units),
        english_names=_cleaned(names),
        rank=_integer(row.get("COMMON_TEST_RANK", "")),
    )


def _long_name(values: dict[str, str]) -> str:
    if values["short_name"]:
        return values["short_name"]
    by = f" by {values['method']}" if values["method"] else ""
    return f"{values['component']} [{values['property']}] in {values['system']}{by}"


def _entry(row: dict[str, str]) -> Entry:
    if not _CODE.fullmatch(row["code"].strip()):
        raise InvalidCatalogue(f"{row['code']!r} is not a LOINC code; expected digits, a hyphen and a check digit, such as 718-7.")
    texts = {column: row.get(column, "").strip() for column in (*_TEXT_COLUMNS, "loinc_class")}
    lists = {column: _cleaned(row.get(column, "").split("|")) for column in _LIST_COLUMNS}
    return replace(Entry(**texts), **lists, rank=_integer(row.get("rank", "")))  # type: ignore[arg-type]  # mypy sees one value type for all fields


def _cleaned(texts: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))


def _integer(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _rows(path: Path, required: tuple[str, ...]) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            missing = [column for column in required if column not in (reader.fieldnames or ())]
            if missing:
                raise InvalidCatalogue(f"{path} lacks the column(s) {', '.join(missing)}; expected a CSV with LOINC's own column names.")
            for row in reader:
                yield {key: value for key, value in row.items() if isinstance(key, str)}
    except FileNotFoundError as error:
        raise InvalidCatalogue(f"{path} does not exist; expected the Loinc.csv of a LOINC release.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidCatalogue(f"{path} cannot be read ({type(error).__name__}); expected a CSV in UTF-8.") from error
