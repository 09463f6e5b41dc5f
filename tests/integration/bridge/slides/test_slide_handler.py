"""The slide system's work against a real gRPC server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.v1 import slides_pb2

from bridge.errors import OverloadError, PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.job import Delivery, Job, Units
from bridge.results import ResultStore
from bridge.systems.wsi import checkpoints
from bridge.systems.wsi.handler import SlideHandler
from bridge.systems.wsi.messages import request_message
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.bridge.scripted_server import ScriptedServer, answer, refuse

PICTURE = b"picture" * 1000
REPORT = {"tissue": {"area_mm2": 1.5, "share": 0.5, "cell_um": 8}, "measures": {"nuclear_candidates": 40}, "unreadable": []}
SUMMARY = {"tissue_area_mm2": 1.5, "tissue_share": 0.5, "nuclear_candidates": 40}


@pytest.fixture
def results(tmp_path: Path) -> ResultStore:
    return ResultStore(str(tmp_path / "results"))


def slide_job(handler: SlideHandler, **asked: Any) -> Job:
    body = request_message(key="job-1", slide_uri="/slides/a.svs", **asked)
    return handler.parse(Delivery(source="local", queue="jobs", message_id="1", receipt="1", body=body))


def progress(done: int, total: int, stage: str = "tiles") -> slides_pb2.AnalyzeSlideResponse:
    told = slides_pb2.AnalysisProgress(stage=stage, tiles_done=done, tiles_total=total, tiles_per_second=8.0, seconds_left=2.0)
    return slides_pb2.AnalyzeSlideResponse(progress=told)


def checkpoint(part: int, uri: str = "", *, resumed: bool = False, data: bytes = b"") -> slides_pb2.AnalyzeSlideResponse:
    saved = slides_pb2.SlideCheckpoint(
        part=part,
        name=f"checkpoint/{part:06}.part",
        uri=uri,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        tiles_done=part,
        tiles_total=32,
        resumed=resumed,
    )
    return slides_pb2.AnalyzeSlideResponse(checkpoint=saved)


def piece(part: int, data: bytes) -> slides_pb2.AnalyzeSlideResponse:
    chunk = slides_pb2.ArtifactChunk(name=f"checkpoint/{part:06}.part", offset=0, data=data)
    return slides_pb2.AnalyzeSlideResponse(chunk=chunk)


def chunk(offset: int, data: bytes) -> slides_pb2.AnalyzeSlideResponse:
    return slides_pb2.AnalyzeSlideResponse(chunk=slides_pb2.ArtifactChunk(name="heatmap.png", offset=offset, data=data))


def result(
    uri: str, *, sha256: str = hashlib.sha256(PICTURE).hexdigest(), refused: str = "", resumed: int = 0
) -> slides_pb2.AnalyzeSlideResponse:
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
        resume_refused=refused,
        tiles_resumed=resumed,
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
    stages = [
        progress(done, total, stage) for done, total, stage in ((0, 0, "opening"), (0, 0, "tissue"), (16, 32, "tiles"), (32, 32, "writing"))
    ]
    server.script = [answer(*stages, result("/shared/heatmap.png"))]
    context = RecordedContext()
    await handler.handle(slide_job(handler), context)
    assert context.reports == [(0.0, "opening"), (0.01, "tissue"), (pytest.approx(0.485), "tiles"), (0.95, "writing")]
    assert context.units[2] == Units(done=16, total=32, per_second=8.0, seconds_left=2.0)


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


async def test_parts_are_named_by_the_ledger_once_they_are_saved(
    server: ScriptedServer, client: InferenceClient, results: ResultStore
) -> None:
    handler = SlideHandler(client=client, results=results)
    server.script = [answer(checkpoint(1, "/shared/1"), checkpoint(2, "/shared/2"), result("/shared/heatmap.png"))]
    context = RecordedContext(fence=3)
    await handler.handle(slide_job(handler), context)
    assert server.requests[0].checkpoints
    assert not server.requests[0].HasField("resume")
    saved = [{"runs": [[3, part]], "tiles_done": part, "tiles_total": 32} for part in (1, 2)]
    assert context.checkpoints[:2] == saved


async def test_a_later_try_goes_on_from_all_parts_of_earlier_ones(
    server: ScriptedServer, client: InferenceClient, results: ResultStore
) -> None:
    handler = SlideHandler(client=client, results=results)
    server.script = [answer(checkpoint(1, "/shared/1", resumed=True), result("/shared/heatmap.png"))]
    context = RecordedContext(fence=5, checkpoint={"runs": [[1, 2], [4, 1]]})
    await handler.handle(slide_job(handler), context)
    places = [
        f"{results.root}/slides/job-1/{place}.part" for place in ("1/checkpoint/000001", "1/checkpoint/000002", "4/checkpoint/000001")
    ]
    assert list(server.requests[0].resume.part_uris) == places
    assert context.checkpoints[0]["runs"] == [[1, 2], [4, 1], [5, 1]]


async def test_parts_of_earlier_tries_are_forgotten_when_the_server_starts_over(
    server: ScriptedServer, client: InferenceClient, results: ResultStore
) -> None:
    handler = SlideHandler(client=client, results=results)
    server.script = [answer(checkpoint(1, "/shared/1"), result("/shared/heatmap.png", refused="the slide has changed"))]
    context = RecordedContext(fence=2, checkpoint={"runs": [[1, 2]]})
    outcome = await handler.handle(slide_job(handler), context)
    assert context.checkpoints[0]["runs"] == [[2, 1]]
    assert (outcome.result["started_over"], outcome.result["parts_refused"]) == ("the slide has changed", "")


async def test_without_shared_storage_parts_are_kept_here_and_sent_back(
    server: ScriptedServer, client: InferenceClient, results: ResultStore
) -> None:
    handler = SlideHandler(client=client, results=results, shared_storage=False)
    parts = [b"first", b"second"]
    told = [message for number, part in enumerate(parts, 1) for message in (piece(number, part), checkpoint(number, data=part))]
    server.script = [refuse(grpc.StatusCode.UNAVAILABLE, "going down", after=tuple(told)), answer(chunk(0, PICTURE), result(""))]
    context = RecordedContext(fence=1)
    with pytest.raises(OverloadError):
        await handler.handle(slide_job(handler), context)
    later = RecordedContext(fence=2, checkpoint=context.checkpoints[-1])
    await handler.handle(slide_job(handler), later)
    assert list(server.requests[1].resume.parts) == parts
    assert [path.name for path in Path(results.root).rglob("*") if path.is_file()] == ["heatmap.png"]


@pytest.mark.parametrize(("there", "sent"), [((), [b"", b"", b""]), ((2, 3), [b"", b"2", b"3"]), ((1, 2, 3), [b"1", b"2", b""])])
async def test_parts_that_are_gone_or_too_many_for_a_message_go_empty_so_that_the_server_knows_of_them(
    server: ScriptedServer,
    client: InferenceClient,
    results: ResultStore,
    monkeypatch: pytest.MonkeyPatch,
    there: Sequence[int],
    sent: list[bytes],
) -> None:
    monkeypatch.setattr(checkpoints, "_MOST_BYTES", 2)
    handler = SlideHandler(client=client, results=results, shared_storage=False)
    server.script = [answer(chunk(0, PICTURE), result(""))]
    for number in there:
        await results.folder("slides", "job-1", 1).write(f"checkpoint/{number:06}.part", str(number).encode())
    outcome = await handler.handle(slide_job(handler), RecordedContext(fence=2, checkpoint={"runs": [[1, 3]]}))
    assert outcome.succeeded
    assert list(server.requests[0].resume.parts) == sent


async def test_some_parts_that_were_refused_are_told_apart_from_starting_over(
    server: ScriptedServer, client: InferenceClient, results: ResultStore
) -> None:
    handler = SlideHandler(client=client, results=results)
    server.script = [answer(result("/shared/heatmap.png", refused="1 of 2 parts", resumed=16))]
    outcome = await handler.handle(slide_job(handler), RecordedContext(fence=2, checkpoint={"runs": [[1, 2]]}))
    assert (outcome.result["started_over"], outcome.result["parts_refused"]) == ("", "1 of 2 parts")


async def test_a_slide_that_was_analysed_and_not_committed_is_not_analysed_again(
    server: ScriptedServer, client: InferenceClient, results: ResultStore
) -> None:
    handler = SlideHandler(client=client, results=results)
    server.script = [answer(result("/shared/heatmap.png"))]
    context = RecordedContext(fence=1)
    expected = await handler.handle(slide_job(handler), context)
    again = await handler.handle(slide_job(handler), RecordedContext(fence=2, checkpoint=context.checkpoints[-1]))
    assert again == expected
    assert len(server.requests) == 1
