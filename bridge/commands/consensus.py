"""The commands of the consensus pipeline: `bridge submit consensus`, `bridge runs …`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from bridge.commands.common import AsJson, print_json, with_store
from bridge.errors import PermanentError

if TYPE_CHECKING:
    from bridge.records.consensus import ConsensusRecords, RunRecord
    from bridge.store import Store

_EXIT_FAILED = 1

runs = typer.Typer(help="Runs of the consensus pipeline.", no_args_is_help=True)

Idea = Annotated[str, typer.Option(help="One to ten sentences; - reads them from standard input.")]
Context = Annotated[str, typer.Option(help="What the reviewers should know beside: text, or a JSON object.")]
Revise = Annotated[str, typer.Option(metavar="RUN", help="Revise this completed run.")]
Edited = Annotated[str, typer.Option(help="For a revision: the proposal as you have edited it, as text or as a JSON object.")]
Notes = Annotated[str, typer.Option(help="For a revision: what to change.")]
High = Annotated[bool, typer.Option("--high", help="Of high priority.")]
Message = Annotated[str, typer.Option(metavar="JSON", help="A job message as the platform publishes it, instead; - reads standard input.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show the steps until the run ends; the exit status tells success.")]


def submit(
    idea: Idea = "",
    extra_context: Context = "",
    revise: Revise = "",
    edited_proposal: Edited = "",
    edit_notes: Notes = "",
    high: High = False,
    message: Message = "",
    wait: Wait = False,
) -> None:
    """Have an idea expanded, reviewed by five personas, and decided on."""
    from bridge.settings_consensus import load_consensus

    settings = load_consensus()

    async def work(store: Store) -> bool:
        from bridge.platforms.consensus_submission import Submission

        submission = Submission(store, settings)
        if message:
            run_id = await submission.pass_on(_given(message).encode())
        else:
            edits = {"edited_proposal": _object_or_text(edited_proposal), "edit_notes": edit_notes or None}
            context = _object_or_text(extra_context)
            run_id = await submission.ask(_given(idea), extra_context=context, parent=revise, edits=edits, high=high)
        typer.echo(run_id)
        return not wait or await _completed(submission.records, run_id)

    if not with_store(work):
        raise typer.Exit(_EXIT_FAILED)


@runs.command()
def show(run_id: Annotated[str, typer.Argument(help="The run's id.")], as_json: AsJson = False) -> None:
    """Show a run and its steps."""

    async def work(store: Store) -> None:
        from bridge.http.runs import run_facts
        from bridge.records.consensus import ConsensusRecords

        run = await _found(ConsensusRecords(store.database), run_id)
        if as_json:
            print_json(run_facts(run))
            return
        from rich.console import Console

        from bridge.commands.run_display import run_table

        Console().print(run_table(run))

    with_store(work)


@runs.command()
def retry(run_id: Annotated[str, typer.Argument(help="The run's id.")]) -> None:
    """Ask for a failed run again: it goes on at its first unfinished step. So does one whose message was lost.

    A run that a bridge works on is begun by no other. The old worker knows nothing of that: where it has the run, both pay for it.
    """
    from bridge.settings_consensus import load_consensus

    settings = load_consensus()

    async def work(store: Store) -> None:
        from bridge.platforms.consensus_submission import Submission

        submission = Submission(store, settings)
        run = await submission.retry(await _found(submission.records, run_id))
        typer.echo(f"{run.id} is asked for again (retry {run.retry_count})")

    with_store(work)


async def _found(records: ConsensusRecords, run_id: str) -> RunRecord:
    try:
        key = str(UUID(run_id))
    except ValueError as error:
        raise PermanentError(f"{run_id!r} is no UUID; a run's id was printed when it was asked for") from error
    run = await records.find(key)
    if run is None:
        raise PermanentError(f"there is no run {key}")
    return run


async def _completed(records: ConsensusRecords, run_id: str) -> bool:
    """Show a run until it ends; whether it was completed."""
    from rich.console import Console

    from bridge.commands.run_display import follow_run

    return await follow_run(records, run_id, Console(stderr=True))


def _given(text: str) -> str:
    return typer.get_text_stream("stdin").read() if text == "-" else text


def _object_or_text(text: str) -> Mapping[str, Any] | str | None:
    """A JSON object as that, anything else as text; None for nothing."""
    try:
        content = json.loads(text) if text.lstrip().startswith("{") else text
    except ValueError:
        content = text
    return content or None
