"""The command `inference-server models compile`: builds TensorRT's engines ahead of a server."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from inference_server.commands.display import ModelsOption, progress_bar
from inference_server.logs import configure_logging
from inference_server.settings import PREFIX, Settings

if TYPE_CHECKING:
    from inference_server.engine.tensorrt.building import BuildState


class Precision(StrEnum):
    """What engines compute in."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


def compile_models(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Models; all without any.", show_default=False)] = None,
    models: ModelsOption = None,
    device: Annotated[str | None, typer.Option(help=f"The GPU ({PREFIX}DEVICE); cuda:0 where that is cpu.", show_default=False)] = None,
    engine_cache: Annotated[Path | None, typer.Option(help=f"Folder of engines ({PREFIX}ENGINE_CACHE).", show_default=False)] = None,
    precision: Annotated[
        list[Precision] | None, typer.Option(help=f"May be repeated; without, what the model or {PREFIX}TENSORRT says.", show_default=False)
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            help="Range of shapes, INPUT=MIN:OPT:MAX, a comma between inputs; one for each bucket, of one model.", show_default=False
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Builds at a time; more than one disturb each other's timings.")] = 1,
) -> None:
    """Build the TensorRT engines of models, so that a server finds them; what is built already is left as it is."""
    from inference_server import compilation

    configure_logging("error")
    settings = Settings.load(models=models, device=device, engine_cache=engine_cache)
    wanted = compilation.Wanted(names=names or (), precisions=[each.value for each in precision or ()], profiles=profile or (), jobs=jobs)
    with progress_bar() as bar:
        compiled = compilation.compile_models(settings, wanted, _Shown(bar))
    table = Table("Model", "Engine", "State", "Seconds")
    for each in compiled:
        table.add_row(*map(escape, (each.model, each.engine, each.state.state, f"{each.seconds:.0f}")))
    Console().print(table)
    failed = [each for each in compiled if each.state.state == "failed"]
    for each in failed:
        typer.echo(f"inference-server: {' '.join(filter(None, (each.model, each.engine)))}: {each.state.reason}", err=True)
    if failed:
        raise typer.Exit(1)


class _Shown:
    """Shows each engine as a bar: the phase, and the steps of it."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, Any] = {}

    def __call__(self, engine: str, state: BuildState) -> None:
        if engine not in self._tasks:
            self._tasks[engine] = self._bar.add_task(engine, total=None)
        ended = state.state != "building"
        words = state.state if ended else state.phase
        steps = (1, 1) if ended else (state.done, state.total or None)
        self._bar.update(self._tasks[engine], description=f"{engine}: {words}", completed=steps[0], total=steps[1])
