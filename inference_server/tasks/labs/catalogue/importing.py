"""Brings a user's own Loinc.csv into the models folder."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from inference_server.errors import ConfigurationError, InvalidCatalogue
from inference_server.scheduler.port import Inference
from inference_server.tasks.labs.catalogue.catalogue import FOLDER, IMPORTED, IMPORTED_FACTS, load_catalogue
from inference_server.tasks.labs.catalogue.entries import Entry, Skipped, count_rows, read_official, read_replacements, write_entries
from inference_server.tasks.labs.catalogue.names import base_component
from inference_server.tasks.labs.catalogue.vectors import embedded_names
from inference_server.tasks.labs.embed import Embedder
from inference_server.tasks.labs.parsing.normalise import fold

Progress = Callable[[int, int], None]
# Lies beside Loinc.csv in a release, and tells what stands for deprecated codes.
MAP_TO = "MapTo.csv"
DEFAULT_MODEL = "all_minilm_l6_v2"
# A related name that more components share tells none of them: "Chemistry", "Level".
_MOST_COMPONENTS = 12


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did."""

    # Codes that can be found now, of the table alone.
    imported: int
    # Rows left out: deprecated or discouraged, not laboratory, without a code or name.
    withdrawn: int
    not_laboratory: int
    unnamed: int
    # Names of the whole catalogue that are embedded; 0 when the server will do it at its first start.
    embedded: int
    # The catalogue that the server will tell, as name:version.
    version: str


async def import_catalogue(
    csv: Path, models: Path, progress: Progress, *, inference: Inference | None = None, model: str = DEFAULT_MODEL
) -> ImportReport:
    """Read a Loinc.csv of LOINC's own column names, keep its active laboratory codes, and embed their names.

    `progress` gets what is done and what there is in all: rows first, then rows and names. Without `inference` the names are embedded
    at the server's first start. A server that runs takes the new catalogue
    at its next start. Raises `InvalidCatalogue`, `ConfigurationError`, and what `Inference` raises.
    """
    rows, skipped = await asyncio.to_thread(_read_and_store, csv, models, progress)
    catalogue = await asyncio.to_thread(load_catalogue, models)
    embedded = 0
    if inference is not None:
        texts = catalogue.names.meanings
        await embedded_names(
            texts, Embedder(inference, models), models, model=model, progress=lambda done: progress(rows + done, rows + len(texts))
        )
        embedded = len(texts)
        progress(rows + embedded, rows + embedded)
    return ImportReport(
        imported=rows - skipped.total,
        withdrawn=skipped.withdrawn,
        not_laboratory=skipped.not_laboratory,
        unnamed=skipped.unnamed,
        embedded=embedded,
        version=catalogue.version,
    )


def _read_and_store(csv: Path, models: Path, progress: Progress) -> tuple[int, Skipped]:
    if not csv.is_file():
        wrong = "is no file" if csv.exists() else "does not exist"
        raise InvalidCatalogue(f"{csv} {wrong}; expected the Loinc.csv of a LOINC release.")
    lines = count_rows(csv)
    skipped = Skipped()
    entries = read_official(csv, skipped, lambda done: progress(min(done, lines), lines))
    if not entries:
        raise InvalidCatalogue(f"{csv} has no active laboratory code; expected the Loinc.csv of a LOINC release.")
    rows = len(entries) + skipped.total
    progress(rows, rows)
    facts = {"withdrawn": sorted(skipped.withdrawn_codes), "replaced": read_replacements(csv.with_name(MAP_TO))}
    _store(csv, models, telling_names(entries), facts)
    return rows, skipped


def telling_names(entries: list[Entry]) -> list[Entry]:
    """Related names are kept once for each component, and only where few components share them."""
    components: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        for name in entry.english_names:
            components[fold(name)].add(base_component(entry.component))
    given: set[tuple[str, str]] = set()
    kept = []
    for entry in entries:
        component = base_component(entry.component)
        names = []
        for name in entry.english_names:
            folded = fold(name)
            if folded and len(components[folded]) <= _MOST_COMPONENTS and (component, folded) not in given:
                given.add((component, folded))
                names.append(name)
        kept.append(replace(entry, english_names=tuple(names)))
    return kept


def _store(csv: Path, models: Path, entries: list[Entry], more: Mapping[str, object]) -> None:
    folder = models / FOLDER
    facts = {"file": csv.name, "sha256": _sha256(csv), "codes": len(entries), **more}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=folder) as scratch:
            write_entries(Path(scratch) / IMPORTED, entries)
            (Path(scratch) / IMPORTED_FACTS).write_text(json.dumps(facts), "utf-8")
            for name in (IMPORTED_FACTS, IMPORTED):
                (Path(scratch) / name).replace(folder / name)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be written ({type(error).__name__}); give a --models folder that you may write to."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
