"""Reviewed names: what a person said a printed name means, tried before anything else and kept across restarts."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from inference_server.errors import InvalidInput, Unavailable
from inference_server.tasks.labs.parsing.normalise import fold
from inference_server.tasks.labs.parsing.units import fold_unit

_LONGEST_NAME = 300

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Alias:
    """A reviewed name of a code."""

    name: str
    code: str
    # Unit for which the name means this code; empty for any.
    unit: str = ""
    # Specimen for which it does, as it is printed; empty for any.
    specimen: str = ""
    # Catalogue that it was reviewed with, as name:version; empty when it is not known.
    catalogue: str = ""


class AliasMemory:
    """Aliases in memory and in a file of one JSON object a line. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """`path`: the file; it need not exist. Lines that cannot be read are left out, logged, and kept in it."""
        self._path = path
        self._lock = threading.Lock()
        self._aliases: dict[tuple[str, str, str], Alias] = {}
        aliases, self._unreadable = _read(path)
        for alias in aliases:
            self._aliases[_key(alias)] = alias

    def __len__(self) -> int:
        return len(self._aliases)

    def upsert(self, aliases: Iterable[Alias]) -> tuple[int, int]:
        """Remember names; returns how many are new, and how many had another code. All are kept, or none. Blocks for the disk."""
        with self._lock:
            changed = dict(self._aliases)
            inserted = updated = 0
            for alias in aliases:
                key = _checked_key(alias)
                known = changed.get(key)
                if known is not None and known.code == alias.code:
                    continue
                inserted += known is None
                updated += known is not None
                changed[key] = alias
            # What is known already costs nothing: replicas are told everything again and again.
            if inserted or updated:
                self._write(changed.values())
                self._aliases = changed
        return inserted, updated

    def find(self, name: str, unit: str = "", specimen: str = "") -> Alias | None:
        """The alias of a name as it is printed, but for case and spaces: for its unit and specimen first, then for any."""
        aliases, key = self._aliases, spelling(name)
        kinds = ((unit, specimen), (unit, ""), ("", specimen), ("", ""))
        return next((alias for kind in kinds if (alias := aliases.get((key, fold_unit(kind[0]), spelling(kind[1]))))), None)

    def all(self) -> tuple[Alias, ...]:
        """Every alias, the longest known first."""
        return tuple(self._aliases.values())

    def _write(self, aliases: Iterable[Alias]) -> None:
        lines = [json.dumps(asdict(alias), ensure_ascii=False) for alias in aliases]
        text = "".join(f"{line}\n" for line in [*self._unreadable, *lines])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, scratch = tempfile.mkstemp(prefix=".aliases-", dir=self._path.parent)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(scratch).replace(self._path)
        except OSError as error:
            raise Unavailable(
                f"the reviewed names could not be written ({type(error).__name__}); let the server write to its models folder."
            ) from error


def _read(path: Path) -> tuple[list[Alias], list[str]]:
    """The aliases, and the lines that are none."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        return [], []
    aliases, unreadable = [], []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            more = {field: row.get(field, "") for field in ("unit", "specimen", "catalogue")}
            aliases.append(Alias(name=row["name"], code=row["code"], **more))
        except (ValueError, KeyError, TypeError):
            _log.warning("alias_unreadable", file=str(path), line=number)
            unreadable.append(line)
    return aliases, unreadable


def _key(alias: Alias) -> tuple[str, str, str]:
    return spelling(alias.name), fold_unit(alias.unit), spelling(alias.specimen)


def _checked_key(alias: Alias) -> tuple[str, str, str]:
    key = _key(alias)
    is_blank = not fold(alias.name)
    if is_blank or len(alias.name) > _LONGEST_NAME:
        raise InvalidInput(
            f"an alias has {'no letters or digits' if is_blank else 'too long a name'}; expected 1 to {_LONGEST_NAME} characters."
        )
    return key


def spelling(name: str) -> str:
    """A printed name without regard to case and spaces."""
    return " ".join(name.lower().split())


def digits(text: str) -> str:
    """The digits of a name: T3 and T4, B6 and B12 are alike in letters alone."""
    return "".join(character for character in text if character.isdigit())
