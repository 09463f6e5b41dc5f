"""What the demo prints in the end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PICTURES = ("image/png", "image/jpeg")


def print_results(console: Console, records: Mapping[str, Mapping[str, Any]], *, out_queue: Sequence[Mapping[str, Any]]) -> None:
    """A table for each job, where its files are, and what lies in the out queue."""
    console.print()
    console.print(_slide(records["slide"]["result"]))
    console.print(_document(records["document"]["result"]))
    console.print(_labs(records["labs"]["result"]))
    console.print(_files(records))
    sent = ", ".join(f"{line['job_key']} {line['type']}" for line in out_queue)
    console.print(f"Messages in the out queue (`bridge results` prints them): {sent}")


def _slide(result: Mapping[str, Any]) -> Table:
    table = _facts(f"Slide: {_name(result['slide_uri'])}, {result['width']} × {result['height']} px")
    for name, value in _flat(result["summary"]):
        table.add_row(name.replace("_", " "), _number(value))
    table.add_row("analysed by", f"{result['model']} on {result['engine']} in {result['duration_seconds']:.1f} s")
    return table


def _document(result: Mapping[str, Any]) -> Table:
    table = _facts(f"Document: {_name(result['document_uri'])}, {result['media_type']}")
    table.add_row("pages", str(result["page_count"]))
    table.add_row("words", str(result["word_count"]))
    table.add_row("mean confidence", f"{result['mean_confidence']:.3f}")
    table.add_row("first lines", escape("\n".join(result["first_lines"])))
    table.add_row("read by", f"{', '.join(result['models'])} in {result['duration_seconds']:.1f} s")
    return table


def _labs(result: Mapping[str, Any]) -> Table:
    table = Table(title=f"Lab list: {result['test_count']} tests, catalogue {result['catalogue']}", title_justify="left")
    for column in ("test", "category", "LOINC", "name", "status"):
        table.add_column(column, overflow="fold")
    table.add_column("confidence", justify="right")
    for test in result["tests"]:
        confidence = f"{test['confidence']:.2f}" if test["loinc_code"] else ""
        told = (test["name"], test["category"], test["loinc_code"] or "–", test["loinc_name"] or "", test["status"], confidence)
        table.add_row(*map(escape, told))  # [#/volume] is no markup
    return table


def _files(records: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="Files", title_justify="left")
    table.add_column("job")
    # A path that is broken into two cannot be copied.
    table.add_column("file", no_wrap=True, overflow="ignore")
    for key, record in records.items():
        for artifact in record["result"]["artifacts"]:
            style = "bold green" if artifact["media_type"] in _PICTURES else ""
            table.add_row(key, os.path.relpath(artifact["uri"].removeprefix("file://")), style=style)
    return table


def _facts(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def _flat(summary: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in summary.items():
        rows.extend(_flat(value, f"{prefix}{name} ") if isinstance(value, dict) else [(f"{prefix}{name}", value)])
    return rows


def _name(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]


def _number(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
