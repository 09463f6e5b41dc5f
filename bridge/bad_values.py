"""How a setting that is wrong is told."""

from __future__ import annotations


def bad_value(variable: str, message: str, default: object = None) -> str:
    """The variable, what is wrong with it, and the fix. `message`: of Pydantic; `default`: None, or empty, for one that says nothing."""
    text = message.removeprefix("Value error, ")
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    told = "" if shown is None or shown in ("", {}) else f" ({shown})"
    return f"{variable}: {text[:1].lower()}{text[1:]}; set it right, or unset it for the default{told}"
