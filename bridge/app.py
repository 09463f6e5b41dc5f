"""Puts the bridge together: the only place that names concrete classes."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from bridge.database.engine import Database, open_database
from bridge.database.local_queue import LocalQueue
from bridge.database.migrate import migrate
from bridge.envelopes import native
from bridge.errors import OverloadError, PermanentError, TransientError
from bridge.http.routes import Probe
from bridge.job import Job
from bridge.ledger.port import DeadLetter, DeadLetters, JobRecord, Jobs, Ledger, Outbox
from bridge.ledger.sqlite import SqliteDeadLetters, SqliteJobs, SqliteLedger, SqliteOutbox
from bridge.logs import StepLog
from bridge.relay import Relay, RelayPolicy
from bridge.settings import Settings
from bridge.sinks.local import LocalSink
from bridge.sinks.port import Sink
from bridge.sources.local import LocalSource
from bridge.steps import Observer, Observers
from bridge.systems.port import Handler
from bridge.systems.router import Router
from bridge.worker import Backoff, Desk, Worker, WorkPolicy

if TYPE_CHECKING:
    from bridge.http.server import HttpServer

_log = structlog.get_logger()
_IDLE_LOOK_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Store:
    """What the bridge keeps: the ledger and its neighbours, and the embedded queues."""

    database: Database
    ledger: Ledger
    outbox: Outbox
    dead_letters: DeadLetters
    jobs: Jobs
    # Where jobs come from.
    queue: LocalQueue
    # Where results go.
    results: LocalQueue

    async def submit(self, message: bytes) -> JobRecord | None:
        """Send a message that asks for a job; returns the job when its key is known already. Raises `PoisonError`."""
        envelope = native.read(message)
        job = Job(
            key=envelope.key,
            system=envelope.system,
            request=envelope.request,
            reply_queue=envelope.reply_queue,
            priority=envelope.priority,
        )
        known = await self.jobs.find(job.key)
        # Sent first: after a crash in between, the job is done all the same.
        await self.queue.send(job.key, message, priority=job.priority)
        await self.jobs.announce(job)
        return known if known is not None and known.key == job.key else None

    async def replay(self, letter_id: int) -> DeadLetter:
        """Send a dead letter's bytes again. Raises `PermanentError`."""
        letter = await self.dead_letters.reopen(letter_id)
        if letter.source != "local":
            raise PermanentError(f"dead letter {letter_id} came from {letter.source}, which is not set up here; replay it where it is")
        # Under an id of its own: the old message may still be on its way off the queue.
        await LocalQueue(self.database, letter.queue).send(
            f"{letter.message_id}.{secrets.token_hex(4)}", letter.body, attributes=letter.attributes
        )
        await self.dead_letters.mark_replayed(letter_id)
        return letter

    async def probe(self) -> None:
        """Raise `TransientError` when the ledger is out of reach."""
        await self.jobs.list(limit=1)

    async def idle(self) -> bool:
        """Whether nothing is queued, delayed, or still to be sent."""
        return await self.queue.depth() == 0 and (await self.outbox.backlog()).depth == 0


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """Open the embedded database, brought to the newest schema. Raises `ConfigurationError`."""
    database = open_database(settings.database)
    try:
        await migrate(database)
        yield Store(
            database=database,
            ledger=SqliteLedger(database),
            outbox=SqliteOutbox(database),
            dead_letters=SqliteDeadLetters(database),
            jobs=SqliteJobs(database),
            queue=LocalQueue(database, settings.queue),
            results=LocalQueue(database, settings.results_queue),
        )
    finally:
        await database.close()


@dataclass(frozen=True, kw_only=True)
class Systems:
    """The systems that are served, and what they need to be reachable."""

    handlers: Sequence[Handler]
    probes: dict[str, Probe]


@asynccontextmanager
async def open_systems(settings: Settings) -> AsyncIterator[Systems]:
    """Connect to the inference server and set up every system. Raises `ConfigurationError`."""
    # Only a bridge that runs needs gRPC and object storage, which take long to import.
    from bridge.inference.client import InferenceClient
    from bridge.inference.retries import log_retries
    from bridge.results import ResultStore
    from bridge.systems.documents.handler import DocumentHandler
    from bridge.systems.labs.handler import LabHandler
    from bridge.systems.wsi.handler import SlideHandler

    log_retries()
    results = ResultStore(settings.results)
    async with InferenceClient(settings.inference) as client:

        async def inference_ready() -> None:
            if not await client.server_ready():
                raise OverloadError(f"the inference server at {settings.inference} is not ready, or does not answer; jobs wait for it")

        yield Systems(
            handlers=[
                SlideHandler(client=client, results=results, shared_storage=settings.results_shared),
                DocumentHandler(client=client, results=results, read_roots=settings.read_roots),
                LabHandler(client=client, results=results),
            ],
            probes={"inference": inference_ready},
        )


class Bridge:
    """The worker, the relay and the HTTP server, as one."""

    def __init__(
        self, settings: Settings, store: Store, systems: Systems, *, observers: Sequence[Observer] = (), sink: Sink | None = None
    ) -> None:
        """`observers`: told of every step beside the log and the metrics. `sink`: instead of the embedded queue of results."""
        from bridge.http.metrics import Metrics

        self._settings = settings
        self._store = store
        self._systems = systems
        self._metrics = Metrics(in_flight=lambda: self._worker.in_flight)
        observer = Observers([StepLog(), self._metrics, *observers])
        sink = sink or LocalSink(store.database, queue=settings.results_queue)
        self._relay = Relay(store.outbox, sink, observer, _relay_policy(settings))
        self._worker = Worker(
            Desk(
                name=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}",
                source=LocalSource(store.queue, lease_seconds=settings.lease_seconds),
                ledger=store.ledger,
                dead_letters=store.dead_letters,
                handler=Router(systems.handlers),
                observer=observer,
                policy=_work_policy(settings),
                committed=self._relay.wake,
            )
        )

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event, *, until_idle: bool = False) -> None:
        """Work until `stop`, then drain, at most until `hurry`. With `until_idle`, stop once nothing is left to do."""
        async with AsyncExitStack() as stack:
            if self._settings.http:
                await stack.enter_async_context(self._http())
            _log.info("started", database=str(self._store.database.path), inference=self._settings.inference)
            async with asyncio.TaskGroup() as group:
                relay_stop = asyncio.Event()
                group.create_task(self._relay.run(relay_stop), name="relay")
                watch = group.create_task(self._stop_when_idle(stop), name="idle watch") if until_idle else None
                try:
                    await self._worker.run(stop, hurry)
                finally:
                    # What the last jobs committed is still sent.
                    relay_stop.set()
                    if watch:
                        watch.cancel()

    def _http(self) -> HttpServer:
        from bridge.http.routes import Routes
        from bridge.http.server import HttpServer

        probes = {"ledger": self._store.probe, **self._systems.probes}
        routes = Routes(jobs=self._store.jobs, outbox=self._store.outbox, metrics=self._metrics, probes=probes)
        return HttpServer(routes.application(), self._settings.http)

    async def _stop_when_idle(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(_IDLE_LOOK_SECONDS)
            try:
                idle = self._worker.in_flight == 0 and await self._store.idle() and self._worker.in_flight == 0
            except TransientError as error:
                _log.warning("idle_unknown", error=str(error))
                continue
            if idle:
                _log.info("idle")
                stop.set()


async def serve(settings: Settings, *, until_idle: bool = False) -> None:
    """Run the bridge until SIGTERM or SIGINT; a second signal cuts the drain short. Raises `ConfigurationError`."""
    async with open_store(settings) as store, open_systems(settings) as systems:
        await run_until_signalled(Bridge(settings, store, systems), until_idle=until_idle)


async def run_until_signalled(bridge: Bridge, *, until_idle: bool = False) -> None:
    """Run a bridge; SIGTERM and SIGINT make it drain, and once more make it hurry."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def signalled(number: signal.Signals) -> None:
        _log.info("signalled", signal=number.name)
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, signalled, number)
    try:
        await bridge.run(stop, hurry, until_idle=until_idle)
        _log.info("stopped")
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _work_policy(settings: Settings) -> WorkPolicy:
    return WorkPolicy(
        concurrency=settings.concurrency,
        lease_seconds=settings.lease_seconds,
        max_attempts=settings.max_attempts,
        backoff=Backoff(base=settings.backoff_seconds, limit=settings.backoff_limit_seconds),
        poll_seconds=settings.poll_seconds,
        drain_seconds=settings.drain_seconds,
    )


def _relay_policy(settings: Settings) -> RelayPolicy:
    lease = min(30.0, settings.lease_seconds)
    return RelayPolicy(lease_seconds=lease, send_seconds=lease * 2 / 3, backoff_seconds=settings.backoff_seconds)
