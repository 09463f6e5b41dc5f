"""The command line of the bridge."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import typer
from rich.console import Console
from rich.table import Table

from bridge import console, logs, topology_command
from bridge import settings as configuration
from bridge.app import Store, open_store, serve
from bridge.database.local_queue import QueuedMessage
from bridge.errors import BridgeError, PermanentError, PoisonError
from bridge.ledger.port import State
from bridge.systems.documents import messages as documents
from bridge.systems.labs import messages as labs
from bridge.systems.locations import local_path
from bridge.systems.wsi import messages as slides

_EXIT_FAILED = 1
_EXIT_USAGE = 2
_FOLLOW_SECONDS = 0.25
_ALL = 1_000_000

app = typer.Typer(
    name="bridge",
    help="Takes jobs from queues, has the inference server do them, and sends the results on.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
submit = typer.Typer(help="Ask for a job.", no_args_is_help=True)
dead = typer.Typer(help="Messages that ended without a result.", no_args_is_help=True)
app.add_typer(submit, name="submit")
app.add_typer(dead, name="dead")
app.add_typer(topology_command.commands, name="topology")


def _job_key(key: str) -> str:
    if key and not key.strip():
        raise PermanentError("--key is blank; name the job, or leave it out for a name of its own")
    return key.strip()


Key = Annotated[str, typer.Option("--key", help="Names the job: submitting it twice is one job.", callback=_job_key)]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress until the job ends; the exit status tells success.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, help="Most rows.")]
Result = TypeVar("Result")
_DEFAULTS = {f"{configuration.PREFIX}{name.upper()}": field.get_default() for name, field in configuration.Settings.model_fields.items()}


@app.command(epilog=console.settings_help(_DEFAULTS))
def run(
    until_idle: Annotated[bool, typer.Option("--until-idle", help="Stop once the queue and the outbox are empty.")] = False,
    http: Annotated[str | None, typer.Option(help="Address of health, metrics and job status (BRIDGE_HTTP).")] = None,
) -> None:
    """Take jobs and do them, until SIGTERM."""
    settings = configuration.load(http=http)
    logs.configure(settings.log_level)
    asyncio.run(serve(settings, until_idle=until_idle))


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema. Safe to run many times and at once."""

    async def work(store: Store) -> None:
        typer.echo(f"{store.database.name} is at the newest schema")

    _with_store(work)


@submit.command("slide")
def submit_slide(
    uri: Annotated[str, typer.Argument(help="A path or URL that the inference server can read.")],
    analysis: Annotated[str, typer.Option(help="he_baseline, or a tile model of the repository.")] = "",
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel, for a slide that does not tell it.")] = None,
    key: Key = "",
    wait: Wait = False,
) -> None:
    """Have a slide analysed."""
    _require_file(uri)
    key = key or str(uuid4())
    message = slides.request_message(key=key, slide_uri=uri, analysis=analysis, mpp=mpp)
    _submit({key: (_label(uri), message)}, wait=wait)


@submit.command("document")
def submit_document(
    files: Annotated[list[str], typer.Argument(help="PDF, PNG, JPEG or TIFF files, or URLs.", metavar="FILE…")],
    password: Annotated[str, typer.Option(help="Of an encrypted PDF.")] = "",
    key: Key = "",
    wait: Wait = False,
) -> None:
    """Have documents read, each as a job of its own."""
    if key and len(files) > 1:
        raise PermanentError(f"--key names one job, and {len(files)} files were given; submit them one by one, or without --key")
    asked = {}
    for file in files:
        _require_file(file)
        own_key = key or str(uuid4())
        asked[own_key] = (_label(file), documents.request_message(key=own_key, document_uri=file, password=password))
    _submit(asked, wait=wait)


@submit.command("labs")
def submit_labs(
    file: Annotated[str, typer.Argument(help="A JSON file: a list of tests, or an object with one under `tests`.", metavar="FILE.json")],
    key: Key = "",
    wait: Wait = False,
) -> None:
    """Have a list of lab tests classified."""
    path = _require_file(file)
    if path is None:
        raise PermanentError(f"{file} is a URL; a lab list is read by this command, so name a file of this machine")
    key = key or str(uuid4())
    try:
        message = labs.request_message(key=key, tests=labs.tests_from_json(path.read_bytes()))
    except PoisonError as error:
        raise PermanentError(f"{file}: {error}") from error
    _submit({key: (_label(file), message)}, wait=wait)


@app.command()
def jobs(
    key: Annotated[str, typer.Argument(help="One job's key, or how it starts.")] = "",
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, or show one."""
    from bridge.http.routes import job_facts

    async def one(store: Store) -> None:
        record = await store.jobs.find(key)
        if record is None:
            raise PermanentError(f"no job, or more than one, has a key that starts with {key!r}; `bridge jobs` lists them")
        _print(job_facts(record), as_json=as_json, table=console.job_details)

    async def many(store: Store) -> None:
        records = await store.jobs.list(limit=limit, state=state)
        if as_json:
            _print_json([job_facts(record) for record in records])
        else:
            Console().print(console.jobs_table(records) if records else "no jobs")

    _with_store(one if key else many)


@dead.command("list")
def dead_list(limit: Limit = 100, as_json: AsJson = False) -> None:
    """List dead letters, the newest first."""

    async def work(store: Store) -> None:
        letters = await store.dead_letters.list(limit=limit)
        if as_json:
            shown = ("id", "source", "queue", "message_id", "job_key", "reason", "dead_at", "replayed_at")
            _print_json([{**{name: getattr(letter, name) for name in shown}, "body": _shown(letter.body)} for letter in letters])
        else:
            Console().print(console.letters_table(letters) if letters else "no dead letters")

    _with_store(work)


@dead.command("replay")
def dead_replay(
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

    _with_store(work)


@app.command()
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

    _with_store(work)


@app.command()
def republish(job_id: Annotated[str, typer.Argument(help="The platform's id of the job.")]) -> None:
    """Answer an ended slide job once more, under a new message id.

    Only for a job that the platform still shows as Processing: an answer that came before the platform knew of the job is lost there,
    and a second one under the old id is taken for the first. A job that has had its answer takes this one for an error.
    """

    async def work(store: Store) -> None:
        from bridge.transports import republish as answer_again

        record = await store.jobs.find(job_id.lower())
        if record is None:
            raise PermanentError(f"no job, or more than one, has a key that starts with {job_id!r}; `bridge jobs` lists them")
        typer.echo(f"{record.key} answered again as {await answer_again(store.settings, record)}")

    _with_store(work)


def _submit(asked: dict[str, tuple[str, bytes]], *, wait: bool) -> None:
    """Send messages, by job key with a label, and print the keys."""

    async def work(store: Store) -> bool:
        for key, (_, message) in asked.items():
            known = await store.submit(message)
            typer.echo(key)
            if known is not None:
                typer.echo(f"{key} is known already, as {known.state.value}", err=True)
        if not wait:
            return True
        errors = Console(stderr=True)
        records = await console.Waiting(store.jobs, errors).run({key: label for key, (label, _) in asked.items()})
        for record in records:
            if record.state is State.FAILED:
                errors.print(f"{record.key} failed: {record.last_error}", markup=False, highlight=False, soft_wrap=True)
        return all(record.state is State.SUCCEEDED for record in records)

    if not _with_store(work):
        raise typer.Exit(_EXIT_FAILED)


async def _not_replayed(store: Store) -> list[int]:
    return [letter.id for letter in await store.dead_letters.list(limit=_ALL) if letter.replayed_at is None]


def _with_store(work: Callable[[Store], Awaitable[Result]]) -> Result:
    """Run `work` on the opened store."""
    settings = configuration.load()
    logs.configure("warning")

    async def opened() -> Result:
        async with open_store(settings) as store:
            return await work(store)

    return asyncio.run(opened())


def _require_file(location: str) -> Path | None:
    """The file that a location names; None for a URL, which is the server's to check. Raises `PermanentError`."""
    path = local_path(location)
    if path is None:
        return None
    path = path.expanduser()
    if not path.exists():
        raise PermanentError(f"{location} does not exist; check the path")
    if not path.is_file():
        raise PermanentError(f"{location} is not a file; name a file")
    if path.stat().st_size == 0:
        raise PermanentError(f"{location} is empty (0 bytes); was it copied whole?")
    return path


def _label(location: str) -> str:
    return location.rstrip("/").rsplit("/", 1)[-1]


def _result_line(message: QueuedMessage) -> dict[str, Any]:
    attributes = dict(message.attributes)
    head = {"message_id": message.message_id, "job_key": attributes.pop("job_key", ""), "type": attributes.pop("type", "")}
    return {**head, "attributes": attributes, "body": _text(message.body)}


def _shown(body: bytes) -> Any:
    """What a message says, without the secrets of its request."""
    from bridge.http.routes import without_secrets

    content = _text(body)
    if isinstance(content, dict) and isinstance(content.get("request"), dict):
        return {**content, "request": without_secrets(content["request"])}
    return content


def _text(body: bytes) -> Any:
    """The JSON that bytes hold, else their text."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def _print(facts: dict[str, Any], *, as_json: bool, table: Callable[[Mapping[str, Any]], Table]) -> None:
    if as_json:
        _print_json(facts)
    else:
        Console().print(table(facts))


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2))


def main() -> None:
    """Run the command line. What the user did wrong is one clear line and exit status 2."""
    try:
        app()
    except BridgeError as error:
        typer.echo(f"bridge: {error}", err=True)
        raise SystemExit(_EXIT_USAGE) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
