"""The commands `bridge dead …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.commands.common import AsJson, Limit, content_of, print_json, with_store
from bridge.errors import PermanentError

if TYPE_CHECKING:
    from bridge.store import Store

_ALL = 1_000_000
_SHOWN = ("id", "source", "queue", "message_id", "job_key", "reason", "dead_at", "replayed_at")

commands = typer.Typer(help="Messages that ended without a result.", no_args_is_help=True)


@commands.command("list")
def list_letters(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List dead letters, the newest first."""
    from rich.console import Console

    from bridge.commands.display import letters_table

    async def work(store: Store) -> None:
        letters = await store.dead_letters.list(limit=limit)
        if as_json:
            print_json([{**{name: getattr(letter, name) for name in _SHOWN}, "body": _shown(letter.body)} for letter in letters])
        else:
            Console().print(letters_table(letters) if letters else "no dead letters")

    with_store(work)


@commands.command()
def replay(
    letter_id: Annotated[int | None, typer.Argument(help="Its id, as `bridge dead list` shows it.", metavar="ID")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were not replayed yet.")] = False,
) -> None:
    """Send dead letters again; their jobs start anew, with all their attempts."""
    if (letter_id is None) is not everything:
        raise PermanentError("name one dead letter by its id, or give --all")

    async def work(store: Store) -> None:
        for number in [letter_id] if letter_id is not None else await _not_replayed(store):
            letter = await store.replay(number)
            typer.echo(f"{number} {letter.job_key or letter.message_id} sent again to {letter.queue}")

    with_store(work)


async def _not_replayed(store: Store) -> list[int]:
    return [letter.id for letter in await store.dead_letters.list(limit=_ALL) if letter.replayed_at is None]


def _shown(body: bytes) -> Any:
    """What a message says, without the secrets of its request."""
    from bridge.ledger.facts import without_secrets

    content = content_of(body)
    if isinstance(content, dict) and isinstance(content.get("request"), dict):
        return {**content, "request": without_secrets(content["request"])}
    return content
