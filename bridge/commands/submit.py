"""The commands `bridge submit …`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from bridge.commands.common import with_store
from bridge.errors import PermanentError, PoisonError
from bridge.ledger.port import State
from bridge.systems.locations import local_path

if TYPE_CHECKING:
    from bridge.store import Store

_EXIT_FAILED = 1

commands = typer.Typer(help="Ask for a job.", no_args_is_help=True)


def _job_key(key: str) -> str:
    if key and not key.strip():
        raise PermanentError("--key is blank; name the job, or leave it out for a name of its own")
    return key.strip()


Key = Annotated[str, typer.Option("--key", help="Names the job: submitting it twice is one job.", callback=_job_key)]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress until the job ends; the exit status tells success.")]


@commands.command()
def slide(
    uri: Annotated[str, typer.Argument(help="A path or URL that the inference server can read.")],
    analysis: Annotated[str, typer.Option(help="he_baseline, or another model of the repository with a slide.json.")] = "",
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel, for a slide that does not tell it, or tells it wrong.")] = None,
    icc: Annotated[bool, typer.Option("--icc", help="Bring colours to sRGB by the slide's ICC profile first.")] = False,
    artifact: Annotated[
        list[str] | None, typer.Option(help="A file that is wanted, such as tiles.parquet; more than once for more.")
    ] = None,
    shares: Annotated[
        int, typer.Option(help="Split the slide into so many jobs, which servers may do at the same time.", min=1, max=64)
    ] = 1,
    key: Key = "",
    wait: Wait = False,
) -> None:
    """Have a slide analysed."""
    from bridge.systems.wsi import messages

    _require_files([uri])
    key = key or str(uuid4())
    asked: dict[str, Any] = {"slide_uri": uri, "analysis": analysis, "mpp": mpp, "apply_icc_profile": icc}
    before = messages.share_messages(key=key, shares=shares, **asked)
    message = messages.request_message(key=key, shares=shares, artifacts=artifact or (), **asked)
    _submit({key: (_label(uri), message)}, wait=wait, before=before.values())


@commands.command()
def document(
    files: Annotated[list[str], typer.Argument(help="PDF, PNG, JPEG, TIFF, WebP or HEIC files, or URLs.", metavar="FILE…")],
    password: Annotated[str, typer.Option(help="Of an encrypted PDF. Others of this machine see it; see --ask-password.")] = "",
    ask_password: Annotated[bool, typer.Option("--ask-password", help="Ask for the password, or read it from a pipe.")] = False,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="A file to make beside JSON and text: hocr, alto, pdf (searchable), tsv.")
    ] = None,
    text: Annotated[str, typer.Option("--text", help="Where the text of PDF pages is taken from: ocr, layer, or auto.")] = "",
    key: Key = "",
    wait: Wait = False,
) -> None:
    """Have documents read, each as a job of its own."""
    from bridge.systems.documents import messages

    if key and len(files) > 1:
        raise PermanentError(f"--key names one job, and {len(files)} files were given; submit them one by one, or without --key")
    _require_files(files)
    password = _password() if ask_password else password
    asked = {}
    for file in files:
        own_key = key or str(uuid4())
        message = messages.request_message(key=own_key, document_uri=file, password=password, text_mode=text, formats=formats or ())
        asked[own_key] = (_label(file), message)
    _submit(asked, wait=wait)


@commands.command()
def labs(
    file: Annotated[str, typer.Argument(help="A JSON file: a list of tests, or an object with one under `tests`.", metavar="FILE.json")],
    key: Key = "",
    wait: Wait = False,
) -> None:
    """Have a list of lab tests classified."""
    from bridge.systems.labs import messages

    [path] = _require_files([file])
    if path is None:
        raise PermanentError(f"{file} is a URL; a lab list is read by this command, so name a file of this machine")
    key = key or str(uuid4())
    try:
        message = messages.request_message(key=key, tests=messages.tests_from_json(path.read_bytes()))
    except PoisonError as error:
        raise PermanentError(f"{file}: {error}") from error
    _submit({key: (_label(file), message)}, wait=wait)


def _submit(asked: dict[str, tuple[str, bytes]], *, wait: bool, before: Iterable[bytes] = ()) -> None:
    """Send messages, by job key with a label, and print the keys. `before`: messages that are sent first, and nobody waits for."""

    async def work(store: Store) -> bool:
        for message in before:
            await store.submit(message)
        for key, (_, message) in asked.items():
            known = await store.submit(message)
            typer.echo(key)
            if known is not None:
                typer.echo(f"{key} is known already, as {known.state.value}", err=True)
        return not wait or await _succeed(store, {key: label for key, (label, _) in asked.items()})

    if not with_store(work):
        raise typer.Exit(_EXIT_FAILED)


async def _succeed(store: Store, labels: dict[str, str]) -> bool:
    """Show jobs until they end; whether all of them succeeded."""
    from rich.console import Console

    from bridge.commands.display import Waiting

    errors = Console(stderr=True)
    records = await Waiting(store.jobs, errors).run(labels)
    for record in records:
        if record.state is State.FAILED:
            errors.print(f"{record.key} failed: {record.last_error}", markup=False, highlight=False, soft_wrap=True)
    return all(record.state is State.SUCCEEDED for record in records)


def _password() -> str:
    """What a person types unseen, or the first line of a pipe."""
    source = typer.get_text_stream("stdin")
    if source.isatty():
        return str(typer.prompt("Password", hide_input=True, err=True))
    password = source.readline().rstrip("\r\n")
    if not password:
        raise PermanentError("--ask-password found no password; type it, or send it as the first line of standard input")
    return password


def _require_files(locations: Sequence[str]) -> list[Path | None]:
    """The files that locations name; None for a URL, which is the server's to check. Raises `PermanentError`, with all that is wrong."""
    paths = [local_path(location) for location in locations]
    files = [path.expanduser() if path is not None else None for path in paths]
    wrong = [_fault(location, file) for location, file in zip(locations, files, strict=True) if file is not None]
    if told := [fault for fault in wrong if fault]:
        raise PermanentError("; ".join(told) + ("; nothing was submitted" if len(locations) > 1 else ""))
    return files


def _fault(location: str, path: Path) -> str:
    """What is wrong with a file; empty when nothing is."""
    if not path.exists():
        return f"{location} does not exist, check the path"
    if not path.is_file():
        return f"{location} is not a file, name a file"
    if path.stat().st_size == 0:
        return f"{location} is empty (0 bytes), was it copied whole?"
    return ""


def _label(location: str) -> str:
    return location.rstrip("/").rsplit("/", 1)[-1]
