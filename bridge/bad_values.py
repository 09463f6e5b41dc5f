"""How a setting that is wrong is told."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic_settings import BaseSettings


def bad_field(settings: type[BaseSettings], location: Sequence[str | int], message: str, *, prefix: str = "") -> str:
    """The variable of a field, what is wrong with it, and the fix. `location`, `message`: of Pydantic; `prefix`: of the variable."""
    name = str(location[0]) if location else "settings"
    field = settings.model_fields.get(name.lower())
    return bad_value(f"{prefix}{name.upper()}", message, field.get_default() if field else None)


def bad_value(variable: str, message: str, default: object = None) -> str:
    """The variable, what is wrong with it, and the fix. `message`: of Pydantic; `default`: None, or empty, for one that says nothing."""
    text = message.removeprefix("Value error, ")
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    told = "" if shown is None or shown in ("", {}) else f" ({shown})"
    return f"{variable}: {text[:1].lower()}{text[1:]}; set it right, or unset it for the default{told}"
