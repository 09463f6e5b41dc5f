"""The commands `inference-server evaluate …`: how right the built-in models are on data whose answers are known."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inference_server.commands.display import ModelsOption, progress_bar
from inference_server.logs import configure_logging
from inference_server.settings import Settings

if TYPE_CHECKING:
    from inference_server.tasks.documents.evaluation import DocumentFigures
    from inference_server.tasks.labs.evaluation import LabFigures

evaluate_cli = typer.Typer(help="How right the models are on your own data.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
# Codes that are told before the rest is only counted.
_TOLD_CODES = 5


@evaluate_cli.command("labs")
def evaluate_labs(
    table: Annotated[
        Path, typer.Argument(help="CSV with the columns name, specimen, unit, category, loinc, and maybe value.", show_default=False)
    ],
    models: ModelsOption = None,
    as_json: AsJson = False,
    folds: Annotated[
        int, typer.Option(help="Deal the tests to so many parts; each is matched with the names of the others reviewed.", min=0, max=100)
    ] = 0,
) -> None:
    """Match printed tests whose LOINC code is known, and say how many were right."""
    from inference_server import evaluation

    configure_logging("warning")
    with progress_bar() as bar:
        task = bar.add_task("loading models", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, description="tests", completed=done, total=total)

        figures = asyncio.run(evaluation.evaluate_labs(table, Settings.load(models=models), progress, folds=folds))
    if as_json:
        _print_json(asdict(figures))
        return
    rows = Table("Figure", "Value")
    for row in _lab_rows(figures):
        rows.add_row(*map(escape, row))
    Console().print(rows)


@evaluate_cli.command("documents")
def evaluate_documents(
    folder: Annotated[Path, typer.Argument(help="Folder of documents, each with its text beside it: 1.jpg and 1.csv.", show_default=False)],
    models: ModelsOption = None,
    as_json: AsJson = False,
) -> None:
    """Read documents whose text is known, and say how much of it was read right."""
    from inference_server import evaluation

    configure_logging("warning")
    with progress_bar() as bar:
        task = bar.add_task("loading models", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, description="documents", completed=done, total=total)

        figures, left_out = asyncio.run(evaluation.evaluate_documents(folder, Settings.load(models=models), progress))
    if left_out:
        typer.echo(f"Left out, for they have no text beside them: {', '.join(path.name for path in left_out)}", err=True)
    if as_json:
        _print_json(_document_values(figures))
        return
    Console().print(_document_table(figures))


def _lab_rows(figures: LabFigures) -> list[tuple[str, str]]:
    codes = figures.codes_without_entry
    others = f" and {len(codes) - _TOLD_CODES} others" if len(codes) > _TOLD_CODES else ""
    without = f"{len(codes)}, of {figures.tests_without_entry} tests ({', '.join(codes[:_TOLD_CODES])}{others})" if codes else "0"
    return [
        ("catalogue", figures.catalogue),
        ("model", figures.model),
        ("tests", str(figures.tests)),
        ("codes not in the catalogue", without),
        ("top-1", _share(figures.top_1)),
        ("top-5", _share(figures.top_5)),
        ("recall@20", _share(figures.recall_20)),
        ("component and specimen top-1", _share(figures.component_and_specimen_top_1)),
        ("category", _share(figures.category_accuracy)),
        ("expected calibration error", _share(figures.expected_calibration_error)),
        ("coverage at 95 % precision", _share(figures.coverage_at_95_precision)),
    ]


def _document_table(figures: DocumentFigures) -> Table:
    table = Table("Document", "Page", "CER", "WER", "Bag F1", "Error")
    for page in figures.pages:
        rates = map(_share, (page.character_error_rate, page.word_error_rate, page.bag_f1))
        table.add_row(escape(page.document), str(page.page or "all"), *rates, escape(page.error), end_section=page is figures.pages[-1])
    table.add_row("in all", "", *map(_share, (figures.character_error_rate, figures.word_error_rate, figures.bag_f1)), "")
    return table


def _document_values(figures: DocumentFigures) -> dict[str, Any]:
    pages = [
        asdict(page) | {"character_error_rate": page.character_error_rate, "word_error_rate": page.word_error_rate}
        for page in figures.pages
    ]
    return {
        "pages": pages,
        "character_error_rate": figures.character_error_rate,
        "mean_character_error_rate": figures.mean_character_error_rate,
        "word_error_rate": figures.word_error_rate,
        "bag_f1": figures.bag_f1,
    }


def _share(value: float | None) -> str:
    return "none given" if value is None else f"{value:.3f}"


def _print_json(values: dict[str, Any]) -> None:
    typer.echo(json.dumps(values, ensure_ascii=False, indent=2))
