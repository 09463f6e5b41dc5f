"""The catalogue that is searched: the built-in tests, and the codes of a Loinc.csv that the user imported.

In `<models>/_catalogue/`: `loinc.csv` (imported codes, our columns), `loinc.json` (where they came from), `vectors-*.npz` (embedded
names, made again when the encoder changes), `aliases.jsonl` (reviewed names).
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from inference_server.errors import InvalidCatalogue
from inference_server.tasks.labs.catalogue.entries import Entry, read_entries
from inference_server.tasks.labs.catalogue.fit import EntryTable
from inference_server.tasks.labs.catalogue.index import NameIndex
from inference_server.tasks.labs.catalogue.names import Names, build_names
from inference_server.tasks.labs.parsing.normalise import Abbreviations

FOLDER = "_catalogue"
IMPORTED = "loinc.csv"
IMPORTED_FACTS = "loinc.json"
# A replacement may have been replaced itself.
_MOST_REPLACEMENTS = 5
_BUILT_IN = Path(str(resources.files("inference_server.tasks.labs"))) / "data"


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Codes, their names, and what is needed to search them."""

    # As name:version; the version changes with the content.
    version: str
    entries: Sequence[Entry]
    # Code → place among the entries.
    by_code: Mapping[str, int]
    # Deprecated code → the code that stands for it.
    replaced: Mapping[str, str]
    abbreviations: Abbreviations
    names: Names
    index: NameIndex
    table: EntryTable

    def current(self, code: str) -> str:
        """The code itself, or what stands for it since it was deprecated; empty when the catalogue has neither."""
        for _ in range(_MOST_REPLACEMENTS):
            if code in self.by_code:
                return code
            code = self.replaced.get(code, "")
        return ""


def load_catalogue(models: Path, *, built_in: Path = _BUILT_IN) -> Catalogue:
    """Read and index the built-in catalogue, joined with what was imported; blocks for seconds. Raises `InvalidCatalogue`."""
    own = read_entries(built_in / "catalogue.csv")
    imported_file = models / FOLDER / IMPORTED
    digest = hashlib.sha256((built_in / "catalogue.csv").read_bytes())
    entries, name = own, "builtin"
    if imported_file.is_file():
        digest.update(imported_file.read_bytes())
        entries, name = join(own, _read_imported(imported_file), _withdrawn(models)), "loinc"
    abbreviations = read_abbreviations(built_in / "abbreviations.csv")
    version = f"{name}:{digest.hexdigest()[:12]}"
    return joined_catalogue(entries, version=version, abbreviations=abbreviations, replaced=_replaced(models))


def joined_catalogue(
    entries: Sequence[Entry], *, version: str, abbreviations: Abbreviations, replaced: Mapping[str, str] | None = None
) -> Catalogue:
    """Index entries; takes seconds for tens of thousands of codes."""
    names = build_names(entries)
    return Catalogue(
        version=version,
        entries=entries,
        by_code={entry.code: number for number, entry in enumerate(entries)},
        replaced=replaced or {},
        abbreviations=abbreviations,
        names=names,
        index=NameIndex(names.texts),
        table=EntryTable(entries, names.entry_group),
    )


def _read_imported(path: Path) -> Sequence[Entry]:
    try:
        return read_entries(path)
    except InvalidCatalogue as error:
        raise InvalidCatalogue(
            f"the imported catalogue is damaged: {error} Import Loinc.csv again, or delete {path} for the built-in one."
        ) from error


def join(own: Sequence[Entry], imported: Sequence[Entry], withdrawn: frozenset[str]) -> list[Entry]:
    """The imported codes with the built-in names, categories and ranks; then the built-in codes that it neither has nor withdrew."""
    by_code = {entry.code: entry for entry in own}
    joined = [_joined(entry, by_code[entry.code]) if entry.code in by_code else entry for entry in imported]
    present = {entry.code for entry in imported}
    return joined + [entry for entry in own if entry.code not in present and entry.code not in withdrawn]


def _joined(imported: Entry, own: Entry) -> Entry:
    ranks = [rank for rank in (own.rank, imported.rank) if rank]
    # Axes that the import leaves empty are taken from ours.
    axes = {axis: getattr(imported, axis) or getattr(own, axis) for axis in ("property", "time_aspect", "system", "scale", "short_name")}
    return replace(
        imported,
        **axes,
        category=own.category,
        units=tuple(dict.fromkeys((*own.units, *imported.units))),
        english_names=tuple(dict.fromkeys((*own.english_names, *imported.english_names))),
        indonesian_names=own.indonesian_names,
        rank=min(ranks, default=0),
    )


def read_abbreviations(path: Path) -> Abbreviations:
    """Read a table with the columns short and long; an absent one is empty. Raises `InvalidCatalogue`."""
    if not path.is_file():
        return Abbreviations(())
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="")
        if not {"short", "long"} <= set(reader.fieldnames or ()):
            raise InvalidCatalogue(f"{path} lacks the columns short and long.")
        return Abbreviations([(row["short"], row["long"]) for row in reader])


def _replaced(models: Path) -> dict[str, str]:
    try:
        facts = json.loads((models / FOLDER / IMPORTED_FACTS).read_text("utf-8"))
        return {str(code): str(other) for code, other in facts["replaced"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _withdrawn(models: Path) -> frozenset[str]:
    try:
        facts = json.loads((models / FOLDER / IMPORTED_FACTS).read_text("utf-8"))
        return frozenset(map(str, facts["withdrawn"]))
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
