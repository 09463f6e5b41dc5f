"""The command `bridge topology apply`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.errors import PermanentError

if TYPE_CHECKING:
    from bridge.settings import Settings

commands = typer.Typer(help="Queues and topics of SQS and SNS.", no_args_is_help=True)


@commands.callback()
def _group() -> None:
    """Keeps `apply` a command of its own while there is no other."""


@commands.command()
def apply(dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made.")] = False) -> None:
    """Make the queues, topics, subscriptions and policies that these settings need and that are missing."""
    from bridge import logs
    from bridge import settings as configuration

    settings = configuration.load()
    logs.configure("warning")
    if not settings.sqs_queues:
        raise PermanentError("no queue of SQS is set; name them in BRIDGE_SQS_QUEUES, such as WsiAnalysisWorker,wsi-jobs-in")
    if not asyncio.run(_apply(settings, dry_run=dry_run)):
        typer.echo("nothing is missing")


async def _apply(settings: Settings, *, dry_run: bool) -> int:
    """Returns how many changes there were to make."""
    from bridge.aws.topology import make, missing
    from bridge.transports.aws import open_aws, topology

    changes = 0
    async with open_aws(settings) as aws:
        async for change in missing(aws, topology(settings)):
            typer.echo(f"would {change.text}" if dry_run else change.text)
            if not dry_run:
                await make(aws, change)
            changes += 1
    return changes
