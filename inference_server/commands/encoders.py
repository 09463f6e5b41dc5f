"""The commands `models import-bert` and `models train-labs`: another sentence encoder, and a ranker of one's own catalogue."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from inference_server.commands.display import ModelsOption, progress_bar
from inference_server.errors import ConfigurationError
from inference_server.logs import configure_logging
from inference_server.settings import PREFIX, Settings


def add_to(models_cli: typer.Typer) -> None:
    """Add the commands to `inference-server models`."""
    models_cli.command("import-bert")(import_bert)
    models_cli.command("train-labs")(train_labs)


def import_bert(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder with config.json, model.safetensors and tokenizer.json or vocab.txt.", show_default=False)
    ],
    name: Annotated[str, typer.Option(help="Name of the model in the repository; that of the folder by default.", show_default=False)] = "",
    models: ModelsOption = None,
) -> None:
    """Make a sentence encoder of the repository from any BERT checkpoint, such as BioBERT."""
    from inference_server import upkeep

    chosen = name or checkpoint.resolve().name
    # Names the setting too, so that a name which it would refuse is refused here.
    settings = Settings.load(models=models, lab_model=chosen)
    try:
        folder = upkeep.import_bert(checkpoint, settings, chosen)
    except OSError as error:
        raise ConfigurationError(
            f"{PREFIX}MODELS (--models): {chosen} cannot be written to {settings.models} ({error.strerror}); "
            "name a folder with room that you may write to."
        ) from error
    typer.echo(f"{chosen} is in {folder}. Match lab tests with it: {PREFIX}LAB_MODEL={chosen}")


def train_labs(models: ModelsOption = None) -> None:
    """Train the ranker of lab tests on the repository's own catalogue; a server uses it from its next start."""
    from inference_server import upkeep

    settings = Settings.load(models=models)
    configure_logging("warning")
    with progress_bar() as bar:
        task = bar.add_task("loading models", total=None)

        def progress(step: str, done: int, total: int) -> None:
            bar.update(task, description=step, completed=done, total=total)

        provenance = asyncio.run(upkeep.train_labs(settings, progress))
    typer.echo(json.dumps(dict(provenance), ensure_ascii=False, indent=2))
