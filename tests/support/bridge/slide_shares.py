"""One slide as several jobs: the slide, a real inference server, and handlers over one place for results."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
from lamina.v1 import slides_pb2_grpc

from bridge.inference.client import InferenceClient
from bridge.inference.policies import RetryPolicy
from bridge.job import Delivery, Job
from bridge.results import ResultStore
from bridge.systems.wsi import messages
from bridge.systems.wsi.handler import SlideHandler
from bridge.systems.wsi.shares import HasFailed, SharingPolicy, never_failed
from inference_server.service.slides import SlideServicer
from inference_server.storage.storage import Storage
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.values import Pixels
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.models.direct_inference import DirectInference
from tests.support.slides.painted import paint, write_svs
from tests.support.slides.tile_models import write_segmenter

QUICK = SharingPolicy(patience_seconds=600.0, least_pause_seconds=0.02, most_pause_seconds=0.1)
IMPATIENT = SharingPolicy(patience_seconds=0.0)


class Place:
    """A slide, a server, and handlers over one place for results."""

    def __init__(self, folder: Path, client: InferenceClient) -> None:
        self.folder = folder
        self.client = client
        self.results = ResultStore(str(folder / "results"))

    def handler(self, sharing: SharingPolicy = QUICK, *, shared_storage: bool = True, has_failed: HasFailed = never_failed) -> SlideHandler:
        return SlideHandler(client=self.client, results=self.results, shared_storage=shared_storage, sharing=sharing, has_failed=has_failed)

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
        found = {
            path.name: path.read_bytes() for path in (self.folder / "results" / "slides" / key / str(fence)).iterdir() if path.is_file()
        }
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
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with InferenceClient(f"127.0.0.1:{port}", retries=RetryPolicy(attempts=1)) as client:
        yield Place(folder, client)
    await server.stop(None)


async def whole(place: Place) -> dict[str, bytes]:
    (job,) = place.jobs("whole", 1)
    await place.handler().handle(job, RecordedContext())
    return place.files("whole")
