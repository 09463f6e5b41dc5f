"""The life of a server whose parts are joined: it starts, loads, serves and leaves in order."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata

import structlog

from inference_server.errors import InferenceError
from inference_server.scheduler.registry import ServingModels
from inference_server.scheduler.status import ModelState
from inference_server.service.http import HttpServer
from inference_server.service.lifecycle import Lifecycle, Phase
from inference_server.service.security.access import Access
from inference_server.service.server import GrpcServer
from inference_server.settings import Settings
from inference_server.tasks.labs.classifier import LabClassifier

_log = structlog.get_logger()


def version() -> str:
    """Version of the distribution."""
    return metadata.version("lamina")


def broken_models(models: ServingModels) -> dict[str, str]:
    """Why a model does not serve, by name:version."""
    broken = (status for status in models.index() if status.state is ModelState.UNAVAILABLE)
    return {f"{status.name}:{status.version}".rstrip(":"): status.reason for status in broken}


@dataclass(frozen=True, kw_only=True)
class Application:
    """The parts of a server, joined."""

    settings: Settings
    access: Access
    lifecycle: Lifecycle
    models: ServingModels
    labs: LabClassifier
    grpc: GrpcServer
    http: HttpServer
    # Sends the traces that are left; blocks.
    close_traces: Callable[[], None]
    # Built-in models of services that are not served.
    left_out: frozenset[str] = frozenset()
    # Clear away what earlier servers left behind; each blocks.
    sweeps: Sequence[Callable[[], None]] = ()
    # Called when no call is left; none blocks.
    closes: Sequence[Callable[[], None]] = ()
    # Called when what is to stay has been loaded.
    settled: Callable[[], None] = lambda: None

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        """Serve until `stop`, then leave in order; `hurry` ends the waits."""
        # A caller of the first moment is told that a model loads, not that there is none; what is wrong is told when they load.
        with contextlib.suppress(InferenceError):
            await self.models.announce(but=self.left_out)
        await self.grpc.start()
        _log.info("listening", grpc=self.grpc.address, http=self.http.address, version=version(), models=str(self.settings.models))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.http.run_until_stopped())
            watching = tasks.create_task(self.access.watch())
            loading = tasks.create_task(self._load())
            # In a thread that ends with the process: neither what a server serves nor its exit hangs on it.
            threading.Thread(target=self._sweep, name="sweep", daemon=True).start()
            await stop.wait()
            await self.grpc.stop(grace_seconds=self.settings.grace_seconds, drain_seconds=self.settings.drain_seconds, hurry=hurry)
            loading.cancel()
            for close in self.closes:
                close()
            await self.models.close(grace_seconds=0)
            self.http.stop()
            watching.cancel()
            await asyncio.to_thread(self.close_traces)
        _log.info("stopped")

    def _sweep(self) -> None:
        for sweep in self.sweeps:
            sweep()

    async def _load(self) -> None:
        """Load the models while calls are answered already; those that fail stop nobody else."""
        try:
            await self.models.load_all(but=self.left_out)
        except InferenceError as error:
            _log.error("models_unavailable", reason=str(error))
        self.settled()
        self.lifecycle.advance(Phase.READY)
        await self.grpc.refresh_health()
        _log.info("ready", broken_models=broken_models(self.models))
        if "labs" in self.settings.services:
            await self._start_labs()

    async def _start_labs(self) -> None:
        try:
            await self.labs.start()
        except InferenceError as error:
            _log.error("labs_unavailable", reason=str(error))
            return
        self.settled()
        await self.grpc.refresh_health()
