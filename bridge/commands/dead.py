"""The commands `bridge dead …`."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.commands.common import AsJson, Limit, content_of, print_json, with_store
from bridge.errors import BridgeError, PermanentError

if TYPE_CHECKING:
    from bridge.dead.port import DeadMessage, DeadPlace, Wanted
    from bridge.store import Store

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_EXIT_SOME_FAILED = 1

Queue = Annotated[str, typer.Option(metavar="NAME", help="A queue of SQS that dead messages lie in, instead of the ledger's dead letters.")]
OlderThan = Annotated[str, typer.Option(metavar="TIME", help="Dead for at least so long: 90s, 15m, 2h, 7d.")]
NewerThan = Annotated[str, typer.Option(metavar="TIME", help="Dead for at most so long.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Their reason holds this text, or fits this regular expression.")]
System = Annotated[str, typer.Option(metavar="PATTERN", help="For this system, such as labs or wsi*.")]
Type = Annotated[str, typer.Option("--type", metavar="PATTERN", help="MassTransit's event, such as WsiAnalysisRequested*.")]
Key = Annotated[str, typer.Option(metavar="PATTERN", help="The job's key, such as order-*.")]

commands = typer.Typer(help="Messages that ended without a result: the ledger's dead letters, or a queue of SQS.", no_args_is_help=True)


@commands.command("list")
def list_messages(
    queue: Queue = "",
    older_than: OlderThan = "",
    newer_than: NewerThan = "",
    reason: Reason = "",
    system: System = "",
    type_: Type = "",
    key: Key = "",
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List dead messages. Of a queue they are hidden from others while the list is made."""
    from rich.console import Console

    from bridge.commands.display import dead_table

    wanted = _wanted(older_than, newer_than, reason, system, type_, key)

    async def work(store: Store) -> None:
        async with _place(store, queue) as place:
            found = [message async for message in _meant(place, wanted, limit)]
        if as_json:
            print_json([_facts(message) for message in found])
        else:
            Console().print(dead_table(found) if found else "no dead letters")

    with_store(work)


@commands.command()
def show(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="Its id; of a queue's message the start of it is enough.")],
    queue: Queue = "",
    as_json: AsJson = False,
) -> None:
    """Show one dead message whole, without the secrets of its request."""
    from rich.console import Console

    from bridge.commands.display import job_details

    async def work(store: Store) -> None:
        async with _place(store, queue) as place:
            found = [message async for message in _meant(place, _one(message_id, whole=not queue), 2)]
        if len(found) != 1:
            raise PermanentError(f"{'no' if not found else 'more than one'} dead message's id starts with {message_id!r}")
        facts = {**_facts(found[0]), "attributes": dict(found[0].attributes)}
        if as_json:
            print_json(facts)
        else:
            Console().print(job_details({"state": "", **facts}))

    with_store(work)


@commands.command()
def replay(
    message_id: Annotated[str | None, typer.Argument(help="Its id, as `bridge dead list` shows it.", metavar="ID")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were not replayed yet.")] = False,
    queue: Queue = "",
    older_than: OlderThan = "",
    newer_than: NewerThan = "",
    reason: Reason = "",
    system: System = "",
    type_: Type = "",
    key: Key = "",
    count: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    to: Annotated[str, typer.Option(metavar="NAME", help="The queue of SQS that they go to, instead of where they came from.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent where, and leave it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead messages again; their jobs start anew, with all their attempts. Each is taken off a queue once its replay is confirmed."""
    wanted = _wanted(older_than, newer_than, reason, system, type_, key, replayed=False)
    told = with_store(
        partial(_replay_all, queue=queue, wanted=_to_replay(message_id, everything, wanted), count=count, to=to, dry_run=dry_run)
    )
    if message_id is not None and not told:
        raise PermanentError(f"there is no dead letter {message_id}")
    if as_json:
        print_json(told)
    else:
        _say(told)
    if any(each["error"] for each in told):
        raise typer.Exit(_EXIT_SOME_FAILED)


def _to_replay(message_id: str | None, everything: bool, wanted: Wanted) -> Wanted:
    """The one message of an id, or those with something in common, or all: one of the three must be asked for, and no more."""
    if sum((message_id is not None, everything, wanted.narrows)) != 1:
        raise PermanentError("name one dead letter by its id, or give --all, or what they have in common, such as --reason or --key")
    return wanted if message_id is None else _one(message_id, whole=True)


async def _replay_all(store: Store, *, queue: str, wanted: Wanted, count: int | None, to: str, dry_run: bool) -> list[dict[str, Any]]:
    async with _place(store, queue) as place:
        return [await _replayed(place, message, to, dry_run) async for message in _meant(place, wanted, count)]


async def _replayed(place: DeadPlace, message: DeadMessage, to: str, dry_run: bool) -> dict[str, Any]:
    """What became of one message. One that cannot be sent stays where it is, and holds up no other."""
    name = message.contents.job_key or message.message_id
    told: dict[str, Any] = {"id": message.id, "job_key": message.contents.job_key, "name": name, "dry_run": dry_run, "error": ""}
    if dry_run:
        return {**told, "destination": to or message.destination}
    try:
        return {**told, "destination": await place.replay(message, to=to)}
    except BridgeError as error:
        return {**told, "destination": to or message.destination, "error": str(error)}


def _say(told: list[dict[str, Any]]) -> None:
    for each in told:
        if each["error"]:
            typer.echo(f"{each['id']} {each['name']} was not sent: {each['error']}", err=True)
        elif each["dry_run"]:
            typer.echo(f"{each['id']} {each['name']} would be sent again to {each['destination'] or 'nowhere: name a queue by --to'}")
        else:
            typer.echo(f"{each['id']} {each['name']} sent again to {each['destination']}")
    if not told:
        typer.echo("nothing to send again", err=True)


@asynccontextmanager
async def _place(store: Store, queue: str) -> AsyncIterator[DeadPlace]:
    from bridge.dead.kept import KeptLetters
    from bridge.dead.sqs import SqsDeadQueue
    from bridge.transports.aws import open_aws, payloads

    if not queue:
        yield KeptLetters(store)
        return
    async with (
        open_aws(store.settings) as aws,
        SqsDeadQueue(aws, queue, payloads=payloads(aws, store.settings), reopen=store.reopen) as place,
    ):
        yield place


async def _meant(place: DeadPlace, wanted: Wanted, limit: int | None) -> AsyncIterator[DeadMessage]:
    found = 0
    async for message in place.browse():
        if wanted.fits(message, now=time.time()):
            found += 1
            yield message
        if limit is not None and found >= limit:
            return


def _wanted(older_than: str, newer_than: str, reason: str, system: str, type_: str, key: str, *, replayed: bool = True) -> Wanted:
    from bridge.dead.port import Wanted

    try:
        pattern = re.compile(reason, re.IGNORECASE) if reason else None
    except re.error as error:
        raise PermanentError(
            f"--reason: {reason!r} is no regular expression ({error}); put a \\ before signs that are meant as they are"
        ) from error
    return Wanted(
        older_than=_seconds("--older-than", older_than),
        newer_than=_seconds("--newer-than", newer_than),
        reason=pattern,
        system=system,
        type=type_,
        key=key,
        replayed=replayed,
    )


def _one(message_id: str, *, whole: bool) -> Wanted:
    """The message of an id, or of its start."""
    from bridge.dead.port import Wanted

    return Wanted(id=message_id, whole_id=whole)


def _seconds(option: str, text: str) -> float | None:
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise PermanentError(f"{option}: {text!r} is no time; expected a number with s, m, h or d, such as 15m")
    return float(found[1]) * _UNITS[found[2]]


def _facts(message: DeadMessage) -> dict[str, Any]:
    return {
        "id": message.id,
        "source": message.source,
        "queue": message.queue,
        "destination": message.destination,
        "message_id": message.message_id,
        "job_key": message.contents.job_key,
        "system": message.contents.system,
        "type": message.contents.type,
        "reason": message.reason,
        "dead_at": message.died_at,
        "replayed_at": message.replayed_at,
        "body": _shown(message.body),
    }


def _shown(body: bytes) -> Any:
    """What a message says, without the secrets of its request."""
    from bridge.ledger.facts import without_secrets

    content = content_of(body)
    if isinstance(content, dict) and isinstance(content.get("request"), dict):
        return {**content, "request": without_secrets(content["request"])}
    return content
