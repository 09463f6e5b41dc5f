"""Values as PostgreSQL takes them: NUL is the one character that neither its texts nor its JSON hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def json_text(value: Any) -> str:
    """The JSON text of a value, with another character for NUL."""
    return json.dumps(value, ensure_ascii=False).replace("\\u0000", "\\ufffd")


def storable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a statement, with another character for NUL in those that are texts."""
    return {name: value.replace("\x00", "\ufffd") if isinstance(value, str) else value for name, value in values.items()}
