"""Reads SQL that lies in files: each statement under a line `-- name: its_name`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import TextClause, text

_NAME = re.compile(r"^-- name: (\w+)[^\n]*\n", re.MULTILINE)


def load_statements(file: Path) -> Mapping[str, TextClause]:
    """The statements of one file, by name."""
    parts = _NAME.split(file.read_text(encoding="utf-8"))[1:]
    return {name: text(statement.strip().rstrip(";")) for name, statement in zip(parts[::2], parts[1::2], strict=True)}
