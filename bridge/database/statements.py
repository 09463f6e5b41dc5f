"""Reads SQL that lies in files: each statement under a line `-- name: its_name`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from sqlalchemy import TextClause, text

_NAME = re.compile(r"^-- name: (\w+)[^\n]*\n", re.MULTILINE)
# The schema as the files have it.
_WRITTEN_SCHEMA = re.compile(r"\blamina\.")


@lru_cache(maxsize=64)
def load_statements(file: Path, *, schema: str = "", **words: str) -> Mapping[str, TextClause]:
    """The statements of one file, by name. `schema`: stands where the file says `lamina`; `words`: each where it says `{word}`."""
    written = file.read_text(encoding="utf-8")
    for word, meant in words.items():
        written = written.replace(f"{{{word}}}", meant)
    if schema:
        written = _WRITTEN_SCHEMA.sub(f'"{schema}".', written)
    parts = _NAME.split(written)[1:]
    return {name: text(statement.strip().rstrip(";")) for name, statement in zip(parts[::2], parts[1::2], strict=True)}
