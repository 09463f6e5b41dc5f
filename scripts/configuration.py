"""Writes docs/configuration.md from the settings of both programs, or with --check fails when the committed page is stale.

Usage: scripts/configuration.py [--check]
"""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from bridge import settings as bridge_settings
from bridge import settings_cards, settings_consensus, settings_labs
from inference_server import settings as server_settings

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

Every setting of both programs. `make settings` writes this page from the code, and `make lint` fails when it is stale: change the
comment of the field, not the page.

- A setting is a variable of the environment. Of the server each is a flag too, which wins (`--listen` for `INFERENCE_LISTEN`).
- A value that is wrong ends the program at its start, with the variable, what was expected and how to mend it.
- *Secret* values are never shown: not in logs, not in errors. [security.md](security.md) says where to keep them.
- Names in brackets set the same, where ours is unset; the bridge reads them in any casing.
"""
BOUNDS = {Ge: ("from", "ge"), Gt: ("above", "gt"), Le: ("to", "le"), Lt: ("below", "lt")}
KINDS: Mapping[Any, str] = {
    bool: "true, false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "text, *secret*",
    tuple: "list, by commas",
    dict: "pairs",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Settings that one sentence speaks of."""

    # In code marks; beside each the other names that set it.
    names: list[str]
    defaults: list[str]
    kinds: list[str]
    told: str


def main() -> int:
    """Write or check the page; returns the exit status."""
    page = "\n".join([HEAD, *_sections()])
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
        print(f"wrote docs/{PAGE.name}")
        return 0
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        print(f"docs/{PAGE.name} is stale: run 'make settings' and commit what it writes", file=sys.stderr)
        return 1
    print(f"docs/{PAGE.name} is up to date")
    return 0


def _sections() -> Iterator[str]:
    yield from _section("The inference server", server_settings.Settings, prefix=server_settings.PREFIX)
    yield from _section("The bridge", bridge_settings.Settings, prefix=bridge_settings.PREFIX, others=bridge_settings._NAMES_OF_OTHERS)
    for title, module, settings, page in (
        ("The lab worker", settings_labs, settings_labs.LabWorkerSettings, "lab-worker.md"),
        ("The OCR worker", settings_cards, settings_cards.CardWorkerSettings, "ocr-worker.md"),
        ("The consensus worker", settings_consensus, settings_consensus.ConsensusSettings, "consensus-worker.md"),
    ):
        yield from _section(f"{title}, of the bridge", settings)
        names = ", ".join(f"`{name}`" for name in sorted(_read_by(module.implied_settings, module)))
        yield f"Where the bridge's own settings above are unset, these speak for some of them: {names}."
        yield f"[Its migration](migration/{page}) says which for which.\n"


def _section(
    title: str, settings: type[BaseSettings], *, prefix: str = "", others: Mapping[str, Sequence[str]] | None = None
) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| Variable | Default | Takes | What it says |\n|---|---|---|---|"
    for row in _rows(settings, prefix, others or {}):
        cells = ("<br>".join(row.names), "<br>".join(row.defaults), "<br>".join(row.kinds), row.told)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _rows(settings: type[BaseSettings], prefix: str, others: Mapping[str, Sequence[str]]) -> Iterable[Row]:
    comments = _comments(settings)
    row: Row | None = None
    for name, field in settings.model_fields.items():
        told = field.description or comments.get(name, "")
        if told or row is None:
            if row is not None:
                yield row
            row = Row(names=[], defaults=[], kinds=[], told=told)
        alias = field.validation_alias
        more = [str(each) for each in alias.choices[1:]] if isinstance(alias, AliasChoices) else others.get(name, ())
        row.names.append(f"`{prefix}{name.upper()}`" + (f" ({', '.join(f'`{each}`' for each in more)})" if more else ""))
        row.defaults.append(_default(field))
        row.kinds.append(_kind(field))
    if row is not None:
        yield row


def _comments(settings: type[BaseSettings]) -> dict[str, str]:
    """The comment above each field; a field right below another has none, and shares the other's."""
    source = inspect.getsource(settings)
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno - 1
            while first > 0 and lines[first - 1].strip().startswith("#"):
                first -= 1
            found[node.target.id] = " ".join(line.strip().lstrip("# ") for line in lines[first : node.lineno - 1])
    return found


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = ",".join(str(each) for each in value)
    if value is None or value in ("", {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{int(value) if isinstance(value, float) and value.is_integer() else value}`"


def _kind(field: FieldInfo) -> str:
    options = [each for each in _unfolded(field.annotation) if each is not type(None)]
    kinds = [_word(each) for each in options]
    found = ((type(each), each) for each in _constraints(field))
    bounds = [f"{BOUNDS[kind][0]} {getattr(each, BOUNDS[kind][1])}" for kind, each in found if kind in BOUNDS]
    return " ".join([*dict.fromkeys(kinds), *bounds])


def _constraints(field: FieldInfo) -> Iterator[Any]:
    for each in field.metadata:
        yield from each.metadata if isinstance(each, FieldInfo) else (each,)


def _unfolded(annotation: Any) -> Sequence[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for each in get_args(annotation) for inner in _unfolded(each)]
    if hasattr(annotation, "__metadata__"):
        return _unfolded(get_args(annotation)[0])
    return [annotation]


def _word(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(str(each) or "nothing" for each in get_args(annotation))
    return KINDS[get_origin(annotation) or annotation]


def _read_by(function: Any, module: types.ModuleType) -> set[str]:
    """The variables that a function, and those of its module that it calls, read."""
    tree = ast.parse(inspect.getsource(module))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    reached, open_ones = set(), [function.__name__]
    while open_ones:
        name = open_ones.pop()
        reached.add(name)
        called = {node.func.id for node in ast.walk(functions[name]) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        open_ones += [each for each in called if each in functions and each not in reached]
    return {
        node.value
        for name in reached
        for node in ast.walk(functions[name])
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.isupper()
        and "_" in node.value
        and node.value[0].isalpha()
    }


if __name__ == "__main__":
    raise SystemExit(main())
