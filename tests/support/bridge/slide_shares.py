"""One slide as several jobs: the slide, a real inference server, and handlers over one place for results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
from lamina.v1 import slides_pb2_grpc

from bridge.errors import TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.policies import RetryPolicy
from bridge.job import Delivery, Job, Write
from bridge.ledger.port import JobRecord, Jobs, State
from bridge.results import ResultStore
from bridge.sources.local import LocalSource
from bridge.steps import Observers
from bridge.store import Store
from bridge.systems.port import Handler
from bridge.systems.wsi import messages
from bridge.systems.wsi.handler import SlideHandler
from bridge.systems.wsi.shares import SharingPolicy
from bridge.worker import Desk, Worker, WorkPolicy
from inference_server.service.slides import SlideServicer
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.values import Pixels
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.models.direct_inference import DirectInference
from tests.support.slides.painted import paint, write_svs
from tests.support.slides.tile_models import write_segmenter
from tests.support.slides.written_files import contents

QUICK = SharingPolicy(patience_seconds=600.0, least_pause_seconds=0.02, most_pause_seconds=0.1)
IMPATIENT = SharingPolicy(patience_seconds=0.0)


class Place:
    """A slide, a server, and handlers over one place for results."""

    def __init__(self, folder: Path, address: str, client: InferenceClient) -> None:
        self.folder = folder
        # Of the server.
        self.address = address
        self.client = client
        self.results = ResultStore(str(folder / "results"))

    def handler(self, sharing: SharingPolicy = QUICK, *, shared_storage: bool = True, jobs: Jobs | None = None) -> SlideHandler:
        return SlideHandler(client=self.client, results=self.results, shared_storage=shared_storage, sharing=sharing, jobs=jobs)

    def jobs(self, key: str, shares: int, **more: Any) -> list[Job]:
        """Those of the shares, then the slide's own."""
        bodies = self.messages(key, shares, **more)
        return [self.handler().parse(Delivery(source="", queue="", message_id="", receipt="", body=body)) for body in bodies]

    def messages(self, key: str, shares: int, **more: Any) -> list[bytes]:
        """What asks for those jobs, in the same order."""
        asked: dict[str, Any] = {"slide_uri": str(self.folder / "slide.svs"), "analysis": "stains", **more}
        return [
            *messages.share_messages(key=key, shares=shares, **asked).values(),
            messages.request_message(key=key, shares=shares, **asked),
        ]

    def files(self, key: str, fence: int = 1) -> dict[str, bytes]:
        """What an analysis wrote, but for the name of its job."""
        found = contents(self.folder / "results" / "slides" / key / str(fence))
        return {name: content.replace(f'"{key}"'.encode(), b'"key"') for name, content in found.items()}


def picture() -> Pixels:
    painted = paint(800, 600, tissue=(20, 20, 780, 580))
    painted[100:400, 150:500] = (110, 60, 140)
    return painted


@asynccontextmanager
async def placed(folder: Path) -> AsyncIterator[Place]:
    """A place in a folder, for as long as the block lasts."""
    write_segmenter(folder / "models", mpp=0.5)
    write_svs(folder / "slide.svs", picture())
    storage = Storage(read_roots=(str(folder),), write_roots=(str(folder / "results"),))
    analyzer = SlideAnalyzer(inference=DirectInference(folder / "models"), storage=storage, models=folder / "models")
    server = grpc.aio.server()
    slides_pb2_grpc.add_SlideServiceServicer_to_server(SlideServicer(analyzer), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with InferenceClient(address, retries=RetryPolicy(attempts=1)) as client:
        yield Place(folder, address, client)
    await server.stop(None)


async def whole(place: Place) -> dict[str, bytes]:
    (job,) = place.jobs("whole", 1)
    await place.handler().handle(job, RecordedContext())
    return place.files("whole")


@asynccontextmanager
async def working(store: Store, handler: Handler, *, max_attempts: int = 5) -> AsyncIterator[None]:
    """A worker with a place for one job, for as long as the block lasts: 60 s at most."""
    desk = Desk(
        name="only",
        source=LocalSource(store.queue, lease_seconds=60),
        ledger=store.ledger,
        dead_letters=store.dead_letters,
        handler=handler,
        observer=Observers(()),
        policy=WorkPolicy(concurrency=1, poll_seconds=0.1, max_attempts=max_attempts),
        committed=lambda: None,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(Worker(desk).run(stop, stop))
    try:
        async with asyncio.timeout(60):
            yield
    finally:
        stop.set()
        await running


async def ended(store: Store, *keys: str) -> dict[str, JobRecord]:
    """Those jobs, once they have all ended."""
    while True:
        jobs = {job.key: job for job in await store.jobs.list()}
        if all(key in jobs and jobs[key].state in {State.SUCCEEDED, State.FAILED} for key in keys):
            return {key: jobs[key] for key in keys}
        await asyncio.sleep(0.05)


def left(place: Place, key: str) -> list[str]:
    """Files that are no results of the slide, nor of the whole one that it is compared with."""
    results = place.folder / "results"
    own = {results / "slides" / key, results / "slides" / "whole"}
    return sorted(str(path.relative_to(results)) for path in results.rglob("*") if path.is_file() and path.parent.parent not in own)


class Interrupted(RecordedContext):
    """Is cut off as soon as some tiles are saved."""

    async def checkpoint(self, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> None:
        await super().checkpoint(saved, writes)
        if saved.get("tiles_done"):
            raise TransientError("cut off")
