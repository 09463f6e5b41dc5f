"""The command line of the inference server.

The application is imported by the commands that need it: it brings the engines with it, and `--help` should not wait for them.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inference_server.commands import encoders
from inference_server.commands.compile import compile_models
from inference_server.commands.display import ModelsOption, progress_bar
from inference_server.commands.evaluate import evaluate_cli
from inference_server.errors import ConfigurationError, InferenceError
from inference_server.logs import configure_logging
from inference_server.settings import PREFIX, Settings

cli = typer.Typer(name="inference-server", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
models_cli = typer.Typer(help="The models of the repository.", no_args_is_help=True)
catalogue_cli = typer.Typer(help="The catalogue of lab tests.", no_args_is_help=True)
encoders.add_to(models_cli)
cli.add_typer(models_cli, name="models")
models_cli.command("compile")(compile_models)
cli.add_typer(catalogue_cli, name="catalogue")
cli.add_typer(evaluate_cli, name="evaluate")


# Before numpy is imported: the threads of its matrix products wait by turning, which takes a third of the processor from the engines,
# and the products here are small. A variable that is set stays as it is.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"inference-server {metadata.version('lamina')}")
        raise typer.Exit


@cli.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")] = False,
) -> None:
    """Serves models for slides, documents and lab text over gRPC."""


def serve(**flags: Any) -> None:
    """Serve until SIGTERM or SIGINT. Each flag is also a variable; a flag wins over its variable."""
    import uvloop

    from inference_server import app as application

    # gRPC wakes the event loop several times a call, and an engine's thread does too: with asyncio's own that takes twice as long.
    uvloop.run(application.serve(Settings.load(**flags)))


def _flags() -> list[inspect.Parameter]:
    """One flag for each setting, so that a setting is described in one place."""
    flags = []
    for name, field in Settings.model_fields.items():
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        help_text = f"{field.description} [{PREFIX}{name.upper()}; {'unset' if default is None else default}]"
        kind: Any = bool if field.annotation is bool else str
        names = [f"--{name.replace('_', '-')}"]
        option = typer.Option(None, *names, help=help_text, show_default=False)
        flags.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None))
    return flags


serve.__signature__ = inspect.Signature(_flags())  # type: ignore[attr-defined]
serve.__annotations__ = {flag.name: flag.annotation for flag in _flags()}
cli.command()(serve)


@models_cli.command("build")
def build_models(models: ModelsOption = None) -> None:
    """Make the built-in models from the installed wheels; what is up to date is left as it is."""
    from inference_server import upkeep

    folder = Settings.load(models=models).models
    builders = upkeep.builders(folder)
    with progress_bar() as progress:
        task = progress.add_task("", total=len(builders))
        for name, build in builders.items():
            progress.update(task, description=name)
            try:
                build()
            except OSError as error:
                raise ConfigurationError(
                    f"{PREFIX}MODELS (--models): {name} cannot be written to {folder} ({error.strerror}); "
                    "name a folder with room that you may write to."
                ) from error
            progress.advance(task)
        progress.update(task, description=f"{len(builders)} models in {folder}")


@models_cli.command("list")
def list_models(models: ModelsOption = None) -> None:
    """List what the repository holds."""
    from inference_server import upkeep

    table = Table("Model", "Versions", "Largest batch", "State")
    for row in upkeep.list_models(Settings.load(models=models).models):
        table.add_row(*map(escape, row))
    Console().print(table)


@catalogue_cli.command("import")
def import_catalogue(
    table: Annotated[Path, typer.Argument(help="Loinc.csv of a LOINC release.", show_default=False)],
    models: ModelsOption = None,
) -> None:
    """Take in a full LOINC table; the server uses it from its next start."""
    from inference_server import upkeep

    settings = Settings.load(models=models)
    configure_logging("warning")
    with progress_bar() as progress:
        task = progress.add_task("rows and names", total=None)
        work = upkeep.import_catalogue(table, settings, lambda done, total: progress.update(task, completed=done, total=total))
        report = asyncio.run(work)
    typer.echo(
        f"{report.imported} codes imported as {report.version}; left out: {report.withdrawn} withdrawn, "
        f"{report.not_laboratory} not of a laboratory, {report.unnamed} without a name. "
        f"{report.embedded or 'No'} names embedded. A running server takes them at its next start."
    )


def main() -> None:
    """Run the command line; errors of the user end with one clear message and exit status 2."""
    try:
        cli()
    except InferenceError as error:
        for line in str(error).splitlines():
            typer.echo(f"inference-server: {line}", err=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
