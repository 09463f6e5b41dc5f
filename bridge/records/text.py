"""Values as the JSON text that a `Write` takes."""

from __future__ import annotations

import json
from typing import Any


def json_text(value: Any) -> str:
    """NUL is the one character that PostgreSQL's JSON does not take: another stands for it."""
    return json.dumps(value, ensure_ascii=False).replace("\\u0000", "\\ufffd")
