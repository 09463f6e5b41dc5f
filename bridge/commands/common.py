"""What the commands share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from bridge.store import Store

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Result = TypeVar("Result")
Limit = Annotated[int, typer.Option(min=1, help="Most rows.")]


def with_store(work: Callable[[Store], Awaitable[Result]]) -> Result:
    """Run `work` on the opened store. Raises `ConfigurationError`, `TransientError`."""
    from bridge import logs, settings
    from bridge.store import open_store

    configured = settings.load()
    logs.configure("warning")

    async def opened() -> Result:
        async with open_store(configured) as store:
            return await work(store)

    return asyncio.run(opened())


def print_json(content: Any) -> None:
    """Print JSON for people and programs."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2))


def content_of(body: bytes) -> Any:
    """The JSON that bytes hold, else their text."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
