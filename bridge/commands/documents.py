"""The commands `bridge documents …`: the card platform's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer

from bridge.commands import escalations
from bridge.commands.common import AsJson, print_json
from bridge.errors import PermanentError

if TYPE_CHECKING:
    from bridge.records.documents import DocumentRecords
    from bridge.settings import Settings
    from bridge.settings_cards import CardWorkerSettings
    from bridge.sources.redis_list import RedisSource
    from bridge.store import Store

Result = TypeVar("Result")
OnlyLook = Annotated[bool, typer.Option("--dry-run", help="Only show them.")]
_EXIT_SOME_LAY_THERE = 1
_BRIDGE_SECONDS = 5.0
# What lies nowhere may be on its way: the platform writes a row before it queues it, and the old worker takes a document off its list
# before it says that it has it.
_SETTLE_SECONDS = 2.0

commands = typer.Typer(help="The card platform's queue of documents.", no_args_is_help=True)
commands.add_typer(escalations.commands, name="escalations")


@commands.command()
def enqueue(ids: Annotated[list[str], typer.Argument(help="Documents, by their ids.", metavar="ID…")]) -> None:
    """Put documents into the queue. Those that lie there already, or are being read, are left as they are; the exit status is 1 then."""
    documents = [_document(text) for text in ids]

    async def work(source: RedisSource) -> list[bool]:
        return [await source.enqueue(document) for document in documents]

    added = _with_source(work)
    for document, new in zip(documents, added, strict=True):
        typer.echo(f"{document} {'is queued' if new else 'was there already'}")
    if not all(added):
        raise typer.Exit(_EXIT_SOME_LAY_THERE)


@commands.command()
def status() -> None:
    """Print how the worker and its queues stand, as JSON. The bridge at BRIDGE_HTTP is asked whether it runs."""
    from bridge import logs
    from bridge.settings import load
    from bridge.settings_cards import load_card_worker

    logs.configure("warning")
    cards, configured = load_card_worker(), load()

    async def work(source: RedisSource) -> dict[str, object]:
        levels = await source.levels()
        # The first list is the GPU's: what the platform counts. The others stand below.
        gpu = levels[0]
        return {
            **await worker_facts(configured, cards),
            "isGPUEnabled": cards.ocr_gpu_enabled,
            "autoFallbackEnabled": cards.ocr_gpu_autofallback,
            "maxRetries": configured.max_attempts,
            "stuckJobTimeoutMs": round(1000 * configured.redis_adopt_seconds),
            "reaperIntervalMs": round(1000 * source.look_seconds),
            "queueLength": gpu.waiting,
            "processingCount": gpu.leased,
            "queues": {
                level.queue: {
                    "waiting": level.waiting,
                    "processing": level.leased,
                    "delayed": level.delayed,
                    # This program sees them for the first time: none is as good as unknown.
                    "oldestSeconds": round(level.oldest_seconds, 1) or (None if level.waiting else 0.0),
                }
                for level in levels
            },
        }

    print_json(_with_source(work))


@commands.command()
def reap(dry_run: OnlyLook = False, as_json: AsJson = False) -> None:
    """Put documents back into the queue that nobody holds: begun longer ago than OCR_GPU_STUCK_TIMEOUT, or due for another try."""
    from bridge.settings_cards import load_card_worker

    seconds = load_card_worker().ocr_gpu_stuck_timeout / 1000
    found = _with_source(lambda source: source.requeue_stuck(seconds=seconds, only_look=dry_run))
    _tell(found, "stuck", dry_run=dry_run, as_json=as_json)


@commands.command()
def recover(dry_run: OnlyLook = False, as_json: AsJson = False) -> None:
    """Queue documents again that Redis has lost: their row says `processing`, and they lie nowhere in it. They go on where they were."""
    found = _with_source(lambda source: _recover(source, only_look=dry_run))
    _tell(found, "lost", dry_run=dry_run, as_json=as_json)


def _tell(found: Sequence[str], what: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json([{"documentId": document, "queued": not dry_run} for document in found])
        return
    for document in found:
        typer.echo(f"{document} {f'is {what}' if dry_run else 'is queued again'}")
    if not found:
        typer.echo(f"no document is {what}")


async def _recover(source: RedisSource, *, only_look: bool, settle_seconds: float = _SETTLE_SECONDS) -> list[str]:
    from bridge.records.documents import DocumentRecords
    from bridge.settings import load
    from bridge.store import open_store

    async with open_store(load()) as store:
        records = DocumentRecords(store.database)
        await records.check()
        if suspects := await source.lacking(await records.in_work()):
            await asyncio.sleep(settle_seconds)
        if only_look:
            return [document for document in suspects if await _is_lost(document, source, records)]
        return [document for document in suspects if await _is_queued_again(document, source, records, store)]


async def _is_lost(document: str, source: RedisSource, records: DocumentRecords) -> bool:
    """Whether it lies nowhere, and is to be done. Redis is asked first: who ends a document writes its row before it lets it go."""
    if not await source.lacking([document]):
        return False
    row = await records.find(document)
    return row is not None and row.is_in_work


async def _is_queued_again(document: str, source: RedisSource, records: DocumentRecords, store: Store) -> bool:
    job = await store.jobs.find_open(f"{document}/")
    # Only now: thousands may have come before it.
    if not await _is_lost(document, source, records):
        return False
    # By the id that it was asked for by: it is the same job.
    return await source.enqueue(document, correlation="" if job is None else job.key.partition("/")[2])


async def worker_facts(settings: Settings, cards: CardWorkerSettings) -> dict[str, object]:
    """What the bridge at BRIDGE_HTTP tells of itself, null where it cannot now; of one that does not answer, what is known without it."""
    facts = await asyncio.to_thread(_told_by_bridge, settings.http)
    if facts is not None:
        return {name: facts.get(name) for name in ("isRunning", "isGPUAvailable", "activeJobsCount")}
    # Null where there is nothing to ask.
    running, jobs = (False, 0) if settings.http else (None, None)
    return {"isRunning": running, "isGPUAvailable": cards.has_gpu and await _server_ready(settings), "activeJobsCount": jobs}


def _told_by_bridge(address: str) -> dict[str, object] | None:
    import json
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    host, _, port = address.rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104  (where it listens)
    try:
        # Never by a proxy: it is this machine's.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{here}:{port}/metrics?format=json", timeout=_BRIDGE_SECONDS) as reply:
            worker = json.load(reply)["metrics"]["gpuWorker"]
    except urllib.error.HTTPError:  # it runs, and cannot tell more now
        return {"isRunning": True}
    except (OSError, ValueError, KeyError, TypeError, HTTPException):
        return None
    return worker if isinstance(worker, dict) else None


async def _server_ready(settings: Settings) -> bool:
    from bridge.inference.client import InferenceClient
    from bridge.surroundings import server_trust

    async with InferenceClient(settings.inference, trust=server_trust(settings)) as client:
        return await client.server_ready()


def _document(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError as error:
        raise PermanentError(f"{text!r} is no document's id; expected a UUID") from error


def _with_source(work: Callable[[RedisSource], Awaitable[Result]]) -> Result:
    from bridge import settings
    from bridge.errors import ConfigurationError
    from bridge.transports.redis import open_redis, redis_source

    configured = settings.load()
    if not configured.redis_queues:
        raise ConfigurationError("no queue of Redis is set; set CF_R2_BUCKET_NAME and REDIS_URL, or BRIDGE_REDIS_QUEUES")

    async def opened() -> Result:
        async with open_redis(configured) as access, redis_source(configured, access) as source:
            return await work(source)

    return asyncio.run(opened())
