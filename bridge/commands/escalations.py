"""The commands `bridge documents escalations …`: cases for people that could not be handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bridge.commands.common import AsJson, Limit, print_json
from bridge.errors import PermanentError
from bridge.escalations import State

if TYPE_CHECKING:
    from bridge.escalations.cases import Escalation, EscalationList

Result = TypeVar("Result")
# As many as are looked through for the ids that are named.
_ALL = 1_000_000

commands = typer.Typer(help="Cases for people that the review service has not taken yet, or that were given up.", no_args_is_help=True)


Documents = Annotated[list[str] | None, typer.Argument(help="Dead cases, by their documents' ids.", metavar="ID…")]
Everything = Annotated[bool, typer.Option("--all", help="All dead cases.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show them.")]


@commands.command("list")
def list_cases(
    state: Annotated[State | None, typer.Option(help="Only those that wait, or only the dead.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List cases, the dead first, without what they say of a person."""
    from rich.console import Console

    from bridge.commands.display import escalations_table

    async def work(cases: EscalationList) -> list[Escalation]:
        wanted = [state] if state else [State.DEAD, State.WAITING]
        return [case for each in wanted for case in await cases.list(each, limit=limit)][:limit]

    found = _with_cases(work)
    if as_json:
        print_json([_facts(case) for case in found])
    else:
        Console().print(escalations_table(found) if found else "no cases")


@commands.command()
def replay(documents: Documents = None, everything: Everything = False, dry_run: DryRun = False) -> None:
    """Let dead cases wait again, with all their tries. A running bridge hands them over."""
    _change(documents, everything, dry_run, lambda cases: cases.replay, done="waits again", to_do="would wait again")


@commands.command()
def drop(documents: Documents = None, everything: Everything = False, dry_run: DryRun = False) -> None:
    """Take dead cases away for good, such as those that people have decided by other means."""
    _change(documents, everything, dry_run, lambda cases: cases.drop, done="is gone", to_do="would go")


def _change(
    documents: Sequence[str] | None,
    everything: bool,
    dry_run: bool,
    change: Callable[[EscalationList], Callable[[Escalation], Awaitable[bool]]],
    *,
    done: str,
    to_do: str,
) -> None:
    if bool(documents) is everything:
        raise PermanentError("name dead cases by their documents' ids, or give --all; `bridge documents escalations list` shows them")

    async def work(cases: EscalationList) -> list[Escalation]:
        dead = await cases.list(State.DEAD, limit=_ALL)
        found = [case for case in dead if everything or case.document in (documents or ())]
        if missing := sorted({*(documents or ())} - {case.document for case in found}):
            raise PermanentError(f"no dead case is of {', '.join(missing)}; `bridge documents escalations list` shows them")
        return [case for case in found if dry_run or await change(cases)(case)]

    changed = _with_cases(work)
    for case in changed:
        typer.echo(f"{case.document or 'what cannot be read'} {to_do if dry_run else done}")
    if not changed:
        typer.echo("no case is dead", err=True)


def _facts(case: Escalation) -> dict[str, Any]:
    return {
        "state": case.state,
        "document": case.document,
        "attempts": case.attempts,
        "queued_at": case.queued_at,
        "died_at": case.died_at,
        "reason": case.reason,
    }


def _with_cases(work: Callable[[EscalationList], Awaitable[Result]]) -> Result:
    from bridge import settings
    from bridge.errors import ConfigurationError
    from bridge.escalations import ESCALATIONS
    from bridge.escalations.cases import EscalationList
    from bridge.transports.redis import open_redis

    configured = settings.load()
    if not configured.redis_url.get_secret_value():
        raise ConfigurationError("Redis is not set; set CF_R2_BUCKET_NAME and REDIS_URL, or BRIDGE_REDIS_URL")

    async def opened() -> Result:
        async with open_redis(configured) as access:
            return await work(EscalationList(access, ESCALATIONS))

    return asyncio.run(opened())
