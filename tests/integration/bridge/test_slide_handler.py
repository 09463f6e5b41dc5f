"""The slide system's work against a real gRPC server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.v1 import slides_pb2

from bridge.errors import PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.values import RetryPolicy
from bridge.job import Delivery, Job
from bridge.results import ResultStore
from bridge.systems.wsi.handler import SlideHandler
from bridge.systems.wsi.messages import request_message
from tests.support.recorded_context import RecordedContext
from tests.support.scripted_server import ScriptedServer, answer, refuse, scripted_server

PICTURE = b"picture" * 1000
REPORT = {"tissue": {"area_mm2": 1.5, "share": 0.5, "cell_um": 8}, "measures": {"nuclear_candidates": 40}, "unreadable": []}
SUMMARY = {"tissue_area_mm2": 1.5, "tissue_share": 0.5, "nuclear_candidates": 40}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        yield running


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[InferenceClient]:
    async with InferenceClient(server.address, retries=RetryPolicy(attempts=1)) as made:
        yield made


@pytest.fixture
def results(tmp_path: Path) -> ResultStore:
    return ResultStore(str(tmp_path / "results"))


def slide_job(handler: SlideHandler, **asked: Any) -> Job:
    body = request_message(key="job-1", slide_uri="/slides/a.svs", **asked)
    return handler.parse(Delivery(source="local", queue="jobs", message_id="1", receipt="1", body=body))


def progress(done: int, total: int) -> slides_pb2.AnalyzeSlideResponse:
    return slides_pb2.AnalyzeSlideResponse(progress=slides_pb2.AnalysisProgress(stage="tiles", tiles_done=done, tiles_total=total))


def chunk(offset: int, data: bytes) -> slides_pb2.AnalyzeSlideResponse:
    return slides_pb2.AnalyzeSlideResponse(chunk=slides_pb2.ArtifactChunk(name="heatmap.png", offset=offset, data=data))


def result(uri: str, *, sha256: str = hashlib.sha256(PICTURE).hexdigest()) -> slides_pb2.AnalyzeSlideResponse:
    artifact = slides_pb2.Artifact(name="heatmap.png", media_type="image/png", uri=uri, size_bytes=len(PICTURE), sha256=sha256)
    analysis = slides_pb2.SlideAnalysis(
        analysis="he_baseline",
        model="he_baseline:1",
        engine="onnxruntime:float32",
        report_json=json.dumps(REPORT),
        artifacts=[artifact],
        info=slides_pb2.SlideInfo(width=2000, height=1000),
        tiles_analyzed=32,
        duration_seconds=1.5,
    )
    return slides_pb2.AnalyzeSlideResponse(result=analysis)


async def test_a_slide_is_analysed_into_the_folder_of_its_fence(
    server: ScriptedServer, client: InferenceClient, results: ResultStore
) -> None:
    handler = SlideHandler(client=client, results=results)
    server.script = [answer(progress(8, 32), result("/shared/heatmap.png"))]
    outcome = await handler.handle(slide_job(handler, mpp=0.25, analysis="he_baseline"), RecordedContext(fence=3))
    folder = f"{results.root}/slides/job-1/3"
    request = server.requests[0]
    assert (request.slide_uri, request.output_uri, request.mpp, request.analysis) == ("/slides/a.svs", folder, 0.25, "he_baseline")
    assert outcome.succeeded
    assert outcome.result["summary"] == SUMMARY
    assert outcome.result["artifacts"][0]["uri"] == "/shared/heatmap.png"
    assert (outcome.result["model"], outcome.result["engine"], outcome.result["location"]) == (
        "he_baseline:1",
        "onnxruntime:float32",
        folder,
    )


async def test_the_event_of_a_slide_says_whose_it_is_and_what_was_found(
    server: ScriptedServer, client: InferenceClient, results: ResultStore
) -> None:
    handler = SlideHandler(client=client, results=results)
    server.script = [answer(result("/shared/heatmap.png"))]
    outcome = await handler.handle(slide_job(handler, reply_queue="answers"), RecordedContext())
    (event,) = outcome.events
    told = json.loads(event.body)
    assert (event.type, event.destination) == ("completed", "answers")
    assert (told["job_key"], told["system"], told["status"], told["result"]["summary"]) == ("job-1", "wsi", "succeeded", SUMMARY)


async def test_progress_is_reported_by_tiles(server: ScriptedServer, client: InferenceClient, results: ResultStore) -> None:
    handler = SlideHandler(client=client, results=results)
    server.script = [answer(progress(0, 0), progress(16, 32), result("/shared/heatmap.png"))]
    context = RecordedContext()
    await handler.handle(slide_job(handler), context)
    assert context.reports == [(0.0, "tiles"), (0.475, "tiles 16/32"), (0.95, "artifacts")]


async def test_without_shared_storage_the_artifacts_come_through_the_stream(
    server: ScriptedServer, client: InferenceClient, results: ResultStore
) -> None:
    handler = SlideHandler(client=client, results=results, shared_storage=False)
    server.script = [answer(chunk(0, PICTURE[:3000]), chunk(3000, PICTURE[3000:]), result(""))]
    outcome = await handler.handle(slide_job(handler), RecordedContext(fence=2))
    assert server.requests[0].output_uri == ""
    assert Path(outcome.result["artifacts"][0]["uri"]) == Path(results.root) / "slides/job-1/2/heatmap.png"
    assert Path(outcome.result["artifacts"][0]["uri"]).read_bytes() == PICTURE


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([chunk(0, PICTURE[:3000]), result("")], "3000 of 7000 bytes"),
        ([chunk(10, PICTURE)], "with a gap"),
        ([chunk(0, PICTURE), result("", sha256="0" * 64)], "damaged"),
        ([result("")], "0 of 7000 bytes"),
    ],
)
async def test_artifacts_that_come_broken_are_never_kept(
    server: ScriptedServer, client: InferenceClient, results: ResultStore, sent: list[slides_pb2.AnalyzeSlideResponse], reason: str
) -> None:
    handler = SlideHandler(client=client, results=results, shared_storage=False)
    server.script = [answer(*sent)]
    with pytest.raises(TransientError, match=reason):
        await handler.handle(slide_job(handler), RecordedContext())
    assert [path for path in Path(results.root).rglob("*") if path.is_file()] == []


async def test_a_slide_that_the_server_refuses_is_permanent(server: ScriptedServer, client: InferenceClient, results: ResultStore) -> None:
    handler = SlideHandler(client=client, results=results)
    server.script = [refuse(grpc.StatusCode.INVALID_ARGUMENT, "the slide does not tell its mpp")]
    with pytest.raises(PermanentError, match="does not tell its mpp"):
        await handler.handle(slide_job(handler), RecordedContext())


async def test_a_slide_that_is_given_up_says_why(client: InferenceClient, results: ResultStore) -> None:
    handler = SlideHandler(client=client, results=results)
    outcome = handler.failure(slide_job(handler), "the slide is truncated")
    assert not outcome.succeeded
    assert outcome.result == {"error": "the slide could not be analysed", "reason": "the slide is truncated"}
    (event,) = outcome.events
    assert json.loads(event.body) == {"job_key": "job-1", "system": "wsi", "status": "failed", **outcome.result}
