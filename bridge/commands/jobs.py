"""The commands that look at jobs and at what came of them."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.commands.common import AsJson, Limit, content_of, print_json, with_store
from bridge.errors import PermanentError
from bridge.ledger.port import JobRecord, State

if TYPE_CHECKING:
    from bridge.database.local_queue import QueuedMessage
    from bridge.store import Store

_FOLLOW_SECONDS = 0.25


def jobs(
    key: Annotated[str, typer.Argument(help="One job's key, or how it starts.")] = "",
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, or show one."""
    from rich.console import Console

    from bridge.commands import display
    from bridge.ledger.facts import job_facts

    async def one(store: Store) -> None:
        facts = job_facts(await _only(store, key))
        if as_json:
            print_json(facts)
        else:
            Console().print(display.job_details(facts))

    async def many(store: Store) -> None:
        records = await store.jobs.list(limit=limit, state=state)
        if as_json:
            print_json([job_facts(record) for record in records])
        else:
            Console().print(display.jobs_table(records) if records else "no jobs")

    with_store(one if key else many)


def results(
    follow: Annotated[bool, typer.Option("--follow", help="Go on until interrupted.")] = False,
    take: Annotated[bool, typer.Option("--take", help="Take each message off the queue once it is printed.")] = False,
) -> None:
    """Print the messages of the embedded queue of results, one JSON object a line."""

    async def work(store: Store) -> None:
        after = 0
        while True:
            messages = await (store.results.receive(limit=100, lease_seconds=30) if take else store.results.peek(after=after))
            for message in messages:
                typer.echo(json.dumps(_result_line(message), ensure_ascii=False))
                after = message.position
                if take:
                    sys.stdout.flush()
                    await store.results.delete(message.receipt)
            if not messages:
                if not follow:
                    return
                await asyncio.sleep(_FOLLOW_SECONDS)

    with_store(work)


def republish(job_id: Annotated[str, typer.Argument(help="The platform's id of the job.")]) -> None:
    """Answer an ended slide job once more, under a new message id.

    Only for a job that the platform still shows as Processing: an answer that came before the platform knew of the job is lost there,
    and a second one under the old id is taken for the first. A job that has had its answer takes this one for an error.
    """

    async def work(store: Store) -> None:
        from bridge.transports.republishing import republish as answer_again

        record = await _only(store, job_id.lower())
        typer.echo(f"{record.key} answered again as {await answer_again(store.settings, record)}")

    with_store(work)


async def _only(store: Store, key: str) -> JobRecord:
    record = await store.jobs.find(key)
    if record is None:
        raise PermanentError(f"no job, or more than one, has a key that starts with {key!r}; `bridge jobs` lists them")
    return record


def _result_line(message: QueuedMessage) -> dict[str, Any]:
    attributes = dict(message.attributes)
    head = {"message_id": message.message_id, "job_key": attributes.pop("job_key", ""), "type": attributes.pop("type", "")}
    return {**head, "attributes": attributes, "body": content_of(message.body)}
