"""Puts the bridge together, of what `served`, `store`, `transports` and `surroundings` open as the settings say."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from bridge.errors import TransientError
from bridge.housekeeping import Housekeeper
from bridge.ledger.asked_anew import AskedAnewLedger
from bridge.logs import StepLog
from bridge.relay import Relay, RelayPolicy
from bridge.served import Systems, open_systems
from bridge.settings import Settings
from bridge.sinks.local import LocalSink
from bridge.sinks.port import Sink
from bridge.sources.local import LocalSource
from bridge.steps import Observer, Observers
from bridge.store import Store, open_store
from bridge.surroundings import machine, open_tracer
from bridge.systems.router import Router
from bridge.tracing.port import NullTracer, Tracer
from bridge.transports.opening import open_transport
from bridge.transports.port import Transport
from bridge.transports.pubsub import push_inbox
from bridge.vitals import Vitals
from bridge.worker import Backoff, Desk, Worker, WorkPolicy

if TYPE_CHECKING:
    from starlette.routing import Route

    from bridge.http.events import JobEvents
    from bridge.http.figures import Figures
    from bridge.http.metrics import Metrics
    from bridge.http.server import HttpServer

_log = structlog.get_logger()
_IDLE_LOOK_SECONDS = 0.1
_DAY_SECONDS = 86_400.0
# How long a bridge that starts waits for its database.
START_PATIENCE_SECONDS = 60.0


class Bridge:
    """The worker, the relay and the HTTP server, as one."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        systems: Systems,
        *,
        observers: Sequence[Observer] = (),
        sink: Sink | None = None,
        transport: Transport | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`observers`: told of every step beside the log and the metrics. `transport`: instead of the embedded queues.

        `sink`: instead of the transport's. `tracer`: follows the work; nobody does without one.
        """
        self._settings = settings
        self._store = store
        self._systems = systems
        self._vitals = Vitals(patience_seconds=settings.stuck_seconds)
        self._machine = machine(settings, busy=lambda: self._worker.in_flight > 0)
        self._transport = transport or local_transport(settings, store)
        self._metrics = self._counted()
        observer = Observers([StepLog(), self._metrics, self._machine, *systems.observers, *observers])
        self._housekeeper = Housekeeper(store.pruner, keep_seconds=settings.keep_days * _DAY_SECONDS)
        self._relay = Relay(
            store.outbox, sink or self._transport.sink, observer, _relay_policy(settings), vitals=self._vitals, tracer=tracer
        )
        self._worker = Worker(self._desk(observer, tracer or NullTracer()))

    def _counted(self) -> Metrics:
        """What is told of the work, from 0 on."""
        from bridge.http.metrics import Metrics

        return Metrics(
            in_flight=lambda: self._worker.in_flight,
            vitals=self._vitals,
            source=self._transport.source.name,
            systems=[handler.system for handler in [*self._systems.handlers, *self._systems.recognisers]],
            servers=self._systems.servers,
        )

    def _desk(self, observer: Observer, tracer: Tracer) -> Desk:
        """What the worker has at hand; each bridge has a name of its own."""
        return Desk(
            name=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}",
            source=self._transport.source,
            ledger=AskedAnewLedger(self._store.ledger, self._store.jobs, asked_anew=self._systems.asked_anew),
            dead_letters=self._transport.dead_letters,
            handler=Router(self._systems.handlers, self._systems.recognisers),
            observer=observer,
            policy=_work_policy(self._settings),
            committed=self._relay.wake,
            vitals=self._vitals,
            tracer=tracer,
        )

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event, *, until_idle: bool = False) -> None:
        """Work until `stop`, then drain, at most until `hurry`. With `until_idle`, stop once nothing is left to do."""
        async with AsyncExitStack() as stack:
            if self._settings.http:
                await stack.enter_async_context(self._http(stop))
            await self._machine.look(stop, self._worker.drain_until)
            _log.info("started", database=self._store.database.name, inference=self._settings.inference)
            async with asyncio.TaskGroup() as group:
                relay_stop, ended = asyncio.Event(), asyncio.Event()
                group.create_task(self._relay.run(relay_stop), name="relay")
                group.create_task(self._housekeeper.run(stop), name="housekeeping")
                group.create_task(self._machine.run(ended), name="machine")
                for loop in self._systems.loops:
                    group.create_task(_run_loop(loop, stop), name="loop")
                watch = group.create_task(self._stop_when_idle(stop), name="idle watch") if until_idle else None
                try:
                    await self._worker.run(stop, hurry)
                finally:
                    # What the last jobs committed is still sent.
                    relay_stop.set()
                    ended.set()
                    if watch:
                        watch.cancel()

    def hasten(self) -> None:
        """Of a bridge that drains already, for a notice of its machine: drain for no longer than the settings say, from now."""
        self._worker.drain_until(asyncio.get_running_loop().time() + self._settings.drain_seconds)

    def _http(self, stop: asyncio.Event) -> HttpServer:
        from bridge.http.events import JobEvents
        from bridge.http.routes import Routes
        from bridge.http.server import HttpServer

        events, told = JobEvents(), self._systems.metrics
        routes = Routes(
            jobs=self._store.jobs,
            figures=self._figures(),
            events=events,
            probes={"ledger": self._store.probe, **self._systems.probes, "queue": self._queue_probe},
            more=self._more_routes(events),
            vitals=self._vitals,
            draining=stop.is_set,
            platform_metrics=(lambda levels: told(levels, self._worker.in_flight)) if told else None,
        )
        return HttpServer(routes.application(), self._settings.http)

    def _more_routes(self, events: JobEvents) -> Sequence[Route]:
        """What is served beside health, figures and jobs."""
        from bridge.http.push import PushRoute
        from bridge.http.wsi import WsiRoutes

        slides = WsiRoutes(jobs=self._store.jobs, events=events, submit=self._store.submit)
        inbox = push_inbox(self._settings, self._store.queue)
        return [
            *(slides.routes() if self._settings.wsi_bucket else []),
            *self._systems.routes,
            *([PushRoute(inbox).route()] if inbox else []),
        ]

    def _figures(self) -> Figures:
        from bridge.http.figures import Figures

        return Figures(
            metrics=self._metrics,
            outbox=self._store.outbox,
            dead_letters=self._store.dead_letters,
            levels=self._transport.levels,
            escalations=self._systems.escalations,
            every_seconds=self._settings.metrics_seconds,
        )

    async def _queue_probe(self) -> None:
        """Raise why no messages can come."""
        if self._transport.probe:
            await self._transport.probe()
        await self._worker.probe()

    async def _stop_when_idle(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await asyncio.sleep(_IDLE_LOOK_SECONDS)
            try:
                idle = self._worker.in_flight == 0 and await self._transport.depth() == 0 and await self._store.all_sent()
                idle = idle and self._worker.in_flight == 0
            except TransientError as error:
                _log.warning("idle_unknown", error=str(error))
                continue
            if idle:
                _log.info("idle")
                stop.set()


async def serve(settings: Settings, *, until_idle: bool = False) -> None:
    """Run the bridge until SIGTERM or SIGINT; a second signal cuts the drain short. Raises `ConfigurationError`."""
    async with (
        open_tracer(settings) as tracer,
        open_store(settings, patience_seconds=START_PATIENCE_SECONDS) as store,
        open_systems(settings, store, tracer) as systems,
        open_transport(settings, local=local_transport(settings, store)) as transport,
    ):
        await run_until_signalled(Bridge(settings, store, systems, transport=transport, tracer=tracer), until_idle=until_idle)


def local_transport(settings: Settings, store: Store) -> Transport:
    """The embedded queues."""
    source = LocalSource(store.queue, lease_seconds=settings.lease_seconds, urgent_in_a_row=settings.urgent_in_a_row)
    return Transport(
        source=source,
        sink=LocalSink(store.database, queue=settings.results_queue),
        dead_letters=store.dead_letters,
        depth=store.queue.depth,
        levels=source.levels,
    )


async def run_until_signalled(bridge: Bridge, *, until_idle: bool = False) -> None:
    """Run a bridge; SIGTERM and SIGINT make it drain, and once more make it hurry."""
    stop, hurry, told = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def signalled(number: signal.Signals) -> None:
        _log.info("signalled", signal=number.name)
        if told.is_set():
            hurry.set()
        elif stop.is_set():
            bridge.hasten()
        told.set()
        stop.set()

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
        max_interruptions=settings.max_interruptions,
        max_server_losses=settings.max_server_losses,
        backoff=Backoff(base=settings.backoff_seconds, limit=settings.backoff_limit_seconds),
        poll_seconds=settings.poll_seconds,
        drain_seconds=settings.drain_seconds,
    )


def _relay_policy(settings: Settings) -> RelayPolicy:
    lease = min(30.0, settings.lease_seconds)
    return RelayPolicy(lease_seconds=lease, send_seconds=lease * 2 / 3, backoff_seconds=settings.backoff_seconds)


async def _run_loop(loop: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
    await loop(stop)
