"""The commands `bridge run` and `bridge migrate`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from bridge.commands.common import with_store

if TYPE_CHECKING:
    from bridge.store import Store


class ListsSettings(TyperCommand):
    """A command whose help ends with the settings."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help. The settings take long to import, and are listed nowhere else."""
        from bridge import settings
        from bridge.commands.display import settings_help

        defaults = {f"{settings.PREFIX}{name.upper()}": field.get_default() for name, field in settings.Settings.model_fields.items()}
        self.epilog = settings_help(defaults)
        super().format_help(ctx, formatter)


def run(
    until_idle: Annotated[bool, typer.Option("--until-idle", help="Stop once the queue and the outbox are empty.")] = False,
    http: Annotated[str | None, typer.Option(help="Address of health, metrics and job status (BRIDGE_HTTP).")] = None,
) -> None:
    """Take jobs and do them, until SIGTERM."""
    from bridge import logs, settings
    from bridge.app import serve

    configured = settings.load(http=http)
    logs.configure(configured.log_level)
    asyncio.run(serve(configured, until_idle=until_idle))


def migrate(
    platforms: Annotated[
        list[str], typer.Option("--with", metavar="PLATFORM", help="Create the tables of a platform too, where they are missing.")
    ] = [],  # noqa: B006  (typer copies it)
) -> None:
    """Bring the database to the newest schema. Safe to run many times and at once."""

    async def work(store: Store) -> None:
        from bridge.database.platforms import create_tables

        typer.echo(f"{store.database.name} is at the newest schema")
        for platform in platforms:
            await create_tables(store.database, platform)
            typer.echo(f"{store.database.name} has the tables of {platform}")

    with_store(work)
