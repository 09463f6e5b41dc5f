"""Values as any database takes them: neither texts nor JSON hold NUL, or half of a surrogate pair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def json_text(value: Any) -> str:
    """The JSON text of a value, with other characters for those."""
    return _whole(json.dumps(_without_nul(value), ensure_ascii=False))


def storable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a statement, with other characters for those in texts."""
    return {name: storable_text(value) if isinstance(value, str) else value for name, value in values.items()}


def storable_text(text: str) -> str:
    """A text with other characters for those."""
    return _whole(text.replace("\x00", "\ufffd"))


def _without_nul(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\x00", "\ufffd")
        case Mapping():
            return {_without_nul(name): _without_nul(one) for name, one in value.items()}
        case list() | tuple():
            return [_without_nul(one) for one in value]
    return value


def _whole(text: str) -> str:
    return text.encode(errors="replace").decode()
