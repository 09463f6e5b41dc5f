"""The commands `bridge rollups …`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bridge.rollups.port import Rollup

commands = typer.Typer(help="The lab platform's tables: what waits in them, and the buckets made of it.", no_args_is_help=True)


class Kind(StrEnum):
    """What is rolled up."""

    LABS = "labs"
    VITALS = "vitals"
    NUTRITION = "nutrition"


Kinds = Annotated[list[Kind] | None, typer.Option("--kind", help="Only these; all where none is named.")]
Day = Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="A day, such as 2026-03-01.")]


@commands.command()
def run(kind: Kinds = None, user: Annotated[int | None, typer.Option(help="One user's rows alone.")] = None) -> None:
    """Take up what waits, until nothing does."""

    async def work(rollups: Sequence[Rollup]) -> None:
        from bridge.rollups.passes import until_empty

        rolled = await until_empty(rollups, stop=asyncio.Event(), user=user)
        typer.echo(f"{rolled.taken} rows taken up, {rolled.failed} could not be")

    _with_rollups(kind, work)


@commands.command()
def recompute(
    user: Annotated[int, typer.Option(help="Whose days.")],
    since: Day,
    until: Day,
    kind: Kinds = None,
) -> None:
    """Compute all buckets of a user's days anew, from the rows that there are now: what was deleted since is no longer counted."""

    async def work(rollups: Sequence[Rollup]) -> None:
        for rollup in rollups:
            await rollup.recompute(user, since.date(), until.date())
            typer.echo(f"{rollup.name} of user {user} computed anew, {since:%Y-%m-%d} to {until:%Y-%m-%d}")

    if until < since:
        raise typer.BadParameter("--until lies before --since")
    _with_rollups(kind, work)


def _with_rollups(kinds: Sequence[Kind] | None, work: Callable[[Sequence[Rollup]], Awaitable[None]]) -> None:
    from bridge import logs, settings
    from bridge.inference.client import InferenceClient
    from bridge.platforms.labs import rollups
    from bridge.settings_labs import load_lab_worker
    from bridge.store import open_store
    from bridge.surroundings import server_trust

    configured, labs = settings.load(), load_lab_worker()
    logs.configure("warning")

    async def opened() -> None:
        async with (
            open_store(configured) as store,
            InferenceClient(configured.inference, trust=server_trust(configured)) as client,
        ):
            reports, others = rollups(labs, store.database, client)
            every: list[Rollup] = [*others, reports]
            await work([rollup for rollup in every if not kinds or rollup.name in kinds])

    asyncio.run(opened())
