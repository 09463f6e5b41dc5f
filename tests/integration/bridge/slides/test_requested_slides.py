"""The platform's slides against a real gRPC server that plays the analysis, with a folder for a bucket."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from lamina.v1 import slides_pb2

from bridge.errors import NotYetError, PermanentError, RefusedError
from bridge.inference.client import InferenceClient
from bridge.inference.policies import RetryPolicy
from bridge.job import Delivery, Job
from bridge.results import ResultStore
from bridge.systems.wsi.handler import SlideHandler
from bridge.systems.wsi.platform_handler import RequestedSlideHandler
from tests.support.bridge.recorded_context import RecordedContext
from tests.support.bridge.scripted_server import ScriptedServer, answer, scripted_server

JOB = "7f1de0a4-58a5-4f53-9d7b-0d5dd47c5b0e"
UPLOAD = "b5a4c7f6-6b0a-4b57-8d3a-0f3c7f3f8f11"
ASKED = {"analysis": "he_baseline", "assumed_mpp": 0.5, "apply_icc_profile": True}
REPORT = b'{"schema": "played"}'


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as running:
        files = {"analysis.json": REPORT, "tiles.parquet": b"rows"}
        chunks = [slides_pb2.ArtifactChunk(name=name, offset=0, data=content) for name, content in files.items()]
        artifacts = [
            slides_pb2.Artifact(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in files.items()
        ]
        analysis = slides_pb2.SlideAnalysis(analysis="he_baseline", report_json="{}", artifacts=artifacts)
        told = [slides_pb2.AnalyzeSlideResponse(chunk=chunk) for chunk in chunks]
        running.script = [answer(*told, slides_pb2.AnalyzeSlideResponse(result=analysis)) for _ in range(2)]
        yield running


@pytest.fixture
async def handler(server: ScriptedServer, tmp_path: Path) -> AsyncIterator[RequestedSlideHandler]:
    (tmp_path / "wsi").mkdir()
    (tmp_path / "wsi" / "a b.svs").write_bytes(b"slide")
    bucket = ResultStore(str(tmp_path))
    async with InferenceClient(server.address, retries=RetryPolicy(attempts=1)) as client:
        slides = SlideHandler(client=client, results=bucket, shared_storage=False)
        yield RequestedSlideHandler(slides=slides, bucket=bucket, asked=ASKED)


def _job(handler: RequestedSlideHandler, s3_key: str = "wsi/a b.svs") -> Job:
    event = {"jobId": JOB, "uploadId": UPLOAD, "tenantId": 7, "requestedByUserId": "u", "s3Key": s3_key}
    return handler.parse(Delivery(source="sqs", queue="q", message_id="1", receipt="1", body=json.dumps(event).encode()))


async def test_every_try_has_a_place_of_its_own_and_the_answer_names_it(
    server: ScriptedServer, handler: RequestedSlideHandler, tmp_path: Path
) -> None:
    outcomes = [await handler.handle(_job(handler), RecordedContext(fence=fence)) for fence in (1, 3)]

    keys = [f"results/7/{UPLOAD}/{JOB}/{fence}/analysis.json" for fence in (1, 3)]
    assert keys == [outcome.result["result_s3_key"] for outcome in outcomes]
    assert keys == [json.loads(outcome.events[0].body)["resultS3Key"] for outcome in outcomes]
    for key in [*keys, f"results/7/{UPLOAD}/analysis.json"]:
        assert REPORT == (tmp_path / key).read_bytes()
        assert b"rows" == (tmp_path / key).with_name("tiles.parquet").read_bytes()
    sent = server.requests[0]
    assert (f"{tmp_path}/wsi/a%20b.svs", "he_baseline") == (sent.slide_uri, sent.analysis)
    assert (0.5, True, False) == (sent.assumed_mpp, sent.apply_icc_profile, sent.HasField("mpp"))


async def test_an_analysis_of_an_earlier_try_is_answered_with_that_trys_key(server: ScriptedServer, handler: RequestedSlideHandler) -> None:
    context = RecordedContext(fence=1)
    expected = await handler.handle(_job(handler), context)
    found = await handler.handle(_job(handler), RecordedContext(fence=2, checkpoint=context.checkpoints[-1]))

    assert (expected, 1) == (found, len(server.requests))


@pytest.mark.parametrize("key", ["wsi/gone.svs", "../a b.svs", "wsi//a b.svs"])
async def test_a_slide_that_is_not_there_fails_at_once_in_the_contracts_words(
    server: ScriptedServer, handler: RequestedSlideHandler, key: str
) -> None:
    with pytest.raises(PermanentError, match=r"^S3 object not found\. "):
        await handler.handle(_job(handler, key), RecordedContext())
    assert [] == server.requests


async def test_a_slide_that_is_taken_away_meanwhile_fails_in_the_contracts_words(
    server: ScriptedServer, handler: RequestedSlideHandler, tmp_path: Path
) -> None:
    server.script = [_loses(tmp_path, grpc.StatusCode.NOT_FOUND, "a b.svs does not exist")]
    with pytest.raises(PermanentError, match=r"^S3 object not found\. "):
        await handler.handle(_job(handler), RecordedContext())


def _loses(folder: Path, code: grpc.StatusCode, reason: str) -> Any:
    """The slide is taken away while the server is asked."""

    async def lose(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        (folder / "wsi" / "a b.svs").unlink()
        await context.abort(code, reason)
        yield

    return lose


def _refuses(reason: str) -> Any:
    async def refuse(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)
        yield

    return refuse


async def test_a_server_whose_roots_or_role_are_not_set_yet_makes_slides_wait_and_fails_none(
    server: ScriptedServer, handler: RequestedSlideHandler
) -> None:
    """The platform is told nothing: a failed event cannot be taken back."""
    done = server.script[0]
    server.script = [_refuses("results/ may not be written. Name its folder in INFERENCE_WRITE_ROOTS."), done]
    with pytest.raises(NotYetError, match="INFERENCE_WRITE_ROOTS") as raised:
        await handler.handle(_job(handler), RecordedContext(fence=1))
    assert raised.value.retry_after == 60
    outcome = await handler.handle(_job(handler), RecordedContext(fence=2))
    assert outcome.succeeded


async def _is_done(handler: RequestedSlideHandler, key: str) -> bool:
    return (await handler.handle(replace(_job(handler, "wsi/other.svs"), key=key), RecordedContext())).succeeded


async def test_a_slide_that_alone_is_refused_while_others_are_done_fails_in_the_end(
    server: ScriptedServer, handler: RequestedSlideHandler, tmp_path: Path
) -> None:
    """The bucket's policy may shut the server out of one slide, by its tags or its key; nobody would ever hear of it."""
    (tmp_path / "wsi" / "other.svs").write_bytes(b"slide")
    refused, done = _refuses("the server may not read it"), server.script[0]
    server.script = [*[refused, done] * 30, refused]
    for fence in range(1, 31):
        with pytest.raises(NotYetError):
            await handler.handle(_job(handler), RecordedContext(fence=fence))
        assert await _is_done(handler, f"another-{fence}")
    with pytest.raises(RefusedError, match="may not read it"):
        await handler.handle(_job(handler), RecordedContext(fence=31))


async def test_slides_that_waited_long_are_not_failed_while_one_server_after_another_is_mended(
    server: ScriptedServer, handler: RequestedSlideHandler, tmp_path: Path
) -> None:
    (tmp_path / "wsi" / "other.svs").write_bytes(b"slide")
    refused, done = _refuses("the server may not read it"), server.script[0]
    server.script = [*[refused] * 40, *[done, refused] * 10, done]
    for fence in range(1, 41):  # no server is let
        with pytest.raises(NotYetError) as raised:
            await handler.handle(_job(handler), RecordedContext(fence=fence))
        # SQS counts receipts.
        assert raised.value.retry_after == (60 if fence <= 30 else 300)
    for fence in range(41, 51):  # one is, and others get it
        assert await _is_done(handler, f"another-{fence}")
        with pytest.raises(NotYetError):
            await handler.handle(_job(handler), RecordedContext(fence=fence))
    assert (await handler.handle(_job(handler), RecordedContext(fence=51))).succeeded


async def test_a_key_from_where_the_platform_keeps_no_slides_fails_where_the_server_may_not_read_it(
    server: ScriptedServer, handler: RequestedSlideHandler, tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a.svs").write_bytes(b"slide")
    server.script = [_refuses("others/a.svs may not be read")]
    with pytest.raises(RefusedError, match="may not be read"):
        await handler.handle(_job(handler, "others/a.svs"), RecordedContext())


async def test_a_slide_that_is_gone_fails_though_the_server_was_merely_refused(
    server: ScriptedServer, handler: RequestedSlideHandler, tmp_path: Path
) -> None:
    """Without the right to list a bucket S3 refuses what is missing."""
    server.script = [_loses(tmp_path, grpc.StatusCode.PERMISSION_DENIED, "the server may not read it")]
    with pytest.raises(PermanentError, match=r"^S3 object not found\. "):
        await handler.handle(_job(handler), RecordedContext())
