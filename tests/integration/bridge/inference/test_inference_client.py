"""The inference client against a real gRPC server."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from lamina.v1 import documents_pb2, labs_pb2, slides_pb2

from bridge.errors import OverloadError, PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.documents import DocumentOptions, DocumentPage, DocumentSummary
from bridge.inference.labs import LabTest, MatchStatus
from bridge.inference.policies import RetryPolicy, Timeouts
from bridge.inference.slides import SlideOptions, SlideProgress, SlideResult
from tests.support.bridge.scripted_server import ScriptedServer, answer, hang, refuse, scripted_server

TESTS = [LabTest(id="a", name="Hemoglobin", value="13.5", unit="g/dL")]
QUICK = RetryPolicy(attempts=3, wait_initial=0.01, wait_most=0.05)


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[InferenceClient]:
    timeouts = Timeouts(slide=100, document=100, labs=100, idle=100)
    async with InferenceClient(server.address, client_name="bridge-7", timeouts=timeouts, retries=QUICK) as made:
        yield made


def labs_reply() -> labs_pb2.ClassifyLabTestsResponse:
    candidate = labs_pb2.LoincCandidate(code="718-7", long_common_name="Hemoglobin [Mass/volume] in Blood", score=0.97, reasons=["alias"])
    found = labs_pb2.LabTestClassification(
        id="a", category="Complete Blood Count (CBC)", status=labs_pb2.MATCH_STATUS_MATCHED, candidates=[candidate]
    )
    return labs_pb2.ClassifyLabTestsResponse(classifications=[found], model="minilm:1", catalogue="built-in:1")


def slide_progress(done: int) -> slides_pb2.AnalyzeSlideResponse:
    return slides_pb2.AnalyzeSlideResponse(progress=slides_pb2.AnalysisProgress(stage="tiles", tiles_done=done, tiles_total=4))


def slide_result() -> slides_pb2.AnalyzeSlideResponse:
    result = slides_pb2.SlideAnalysis(analysis="he_baseline", model="he_baseline:1", report_json='{"summary": {"tissue_area_mm2": 1.5}}')
    return slides_pb2.AnalyzeSlideResponse(result=result)


def document_page(number: int) -> documents_pb2.RecognizeDocumentResponse:
    return documents_pb2.RecognizeDocumentResponse(page=documents_pb2.DocumentPage(page_number=number, page_count=2, text=f"page {number}"))


def document_summary() -> documents_pb2.RecognizeDocumentResponse:
    return documents_pb2.RecognizeDocumentResponse(summary=documents_pb2.DocumentSummary(page_count=2, media_type="application/pdf"))


async def events_of(stream: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in stream]


async def ready(client: InferenceClient) -> None:
    while not await client.server_ready():
        await asyncio.sleep(0.05)


async def test_lab_tests_come_back_as_values(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [answer(labs_reply())]
    found = await client.classify_lab_tests(TESTS, request_id="job-1")
    assert [candidate.code for candidate in found.tests[0].candidates] == ["718-7"]
    assert (found.tests[0].status, found.model, found.catalogue) == (MatchStatus.MATCHED, "minilm:1", "built-in:1")


async def test_a_call_tells_who_calls_for_which_job_and_until_when(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [answer(labs_reply())]
    await client.classify_lab_tests(TESTS, request_id="job-1")
    assert (server.metadata[0]["lamina-client"], server.metadata[0]["lamina-request-id"]) == ("bridge-7", "job-1")
    assert server.requests[0].request_id == "job-1"
    assert server.deadlines[0] is not None
    assert 50 < server.deadlines[0] <= 100


async def test_a_key_that_is_no_ascii_still_makes_a_call(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [answer(labs_reply())]
    await client.classify_lab_tests(TESTS, request_id="hasil-é-\n1")
    assert server.requests[0].request_id == "hasil-é-\n1"


async def test_an_analysis_streams_progress_and_ends_with_its_result(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [answer(slide_progress(2), slide_result())]
    options = SlideOptions(output_uri="/results/1", mpp=0.5)
    first, last = await events_of(client.analyze_slide("/slides/a.svs", request_id="job-1", options=options))
    assert isinstance(first, SlideProgress)
    assert isinstance(last, SlideResult)
    assert last.report == {"summary": {"tissue_area_mm2": 1.5}}
    assert (server.requests[0].slide_uri, server.requests[0].output_uri, server.requests[0].mpp) == ("/slides/a.svs", "/results/1", 0.5)


async def test_a_resolution_that_is_not_given_is_not_sent(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [answer(slide_result())]
    await events_of(client.analyze_slide("/slides/a.svs", request_id="job-1"))
    assert not server.requests[0].HasField("mpp")


async def test_a_document_streams_its_pages_and_ends_with_its_summary(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [answer(document_page(1), document_page(2), document_summary())]
    events = await events_of(client.recognize_document(request_id="job-1", content=b"%PDF", options=DocumentOptions(pages=[1, 2])))
    assert [DocumentPage, DocumentPage, DocumentSummary] == [type(event) for event in events]
    assert (server.requests[0].content, list(server.requests[0].pages)) == (b"%PDF", [1, 2])


async def test_a_document_may_be_named_by_its_url(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [answer(document_summary())]
    await events_of(client.recognize_document(request_id="job-1", document_uri="s3://bucket/a.pdf"))
    assert server.requests[0].WhichOneof("source") == "document_uri"


async def test_a_server_that_is_down_is_an_overload() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    async with InferenceClient(address, retries=QUICK) as client:
        with pytest.raises(OverloadError, match=f"inference server at {address} is not available"):
            await client.classify_lab_tests(TESTS, request_id="job-1")
        with pytest.raises(OverloadError, match="not available"):
            await events_of(client.analyze_slide("/a.svs", request_id="job-1"))
        assert not await client.server_ready()


async def test_a_server_that_comes_back_is_found_on_the_same_channel() -> None:
    async with scripted_server() as first:
        first.script = [answer(labs_reply())]
        client = InferenceClient(first.address, retries=QUICK)
        assert await client.server_ready()
    with pytest.raises(OverloadError):
        await client.classify_lab_tests(TESTS, request_id="job-1")
    async with scripted_server(port=int(first.address.rpartition(":")[2])) as second:
        second.script = [answer(labs_reply())]
        await asyncio.wait_for(ready(client), 60)
        assert len((await client.classify_lab_tests(TESTS, request_id="job-1")).tests) == 1
        await client.close()


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED])
async def test_a_call_that_may_succeed_soon_is_tried_again(server: ScriptedServer, client: InferenceClient, code: grpc.StatusCode) -> None:
    server.script = [refuse(code), refuse(code), answer(labs_reply())]
    assert len((await client.classify_lab_tests(TESTS, request_id="job-1")).tests) == 1
    assert len(server.requests) == 3


async def test_tries_come_to_an_end_and_the_wait_asked_for_is_passed_on(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", retry_after_ms=40)]
    with pytest.raises(OverloadError, match=r"full: the queue is full \[RESOURCE_EXHAUSTED\]") as caught:
        await client.classify_lab_tests(TESTS, request_id="job-1")
    assert (caught.value.retry_after, len(server.requests)) == (0.04, 3)


async def test_a_server_that_wants_us_away_for_long_gets_one_try(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_ms=30_000)]
    with pytest.raises(OverloadError) as caught:
        await client.classify_lab_tests(TESTS, request_id="job-1")
    assert (caught.value.retry_after, len(server.requests)) == (30.0, 1)


async def test_a_short_wait_asked_for_is_kept_before_the_next_try(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_ms=50), answer(labs_reply())]
    started = time.monotonic()
    await client.classify_lab_tests(TESTS, request_id="job-1")
    assert time.monotonic() - started >= 0.05


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED])
async def test_what_is_wrong_is_said_once(server: ScriptedServer, client: InferenceClient, code: grpc.StatusCode) -> None:
    server.script = [refuse(code, "no slide there")]
    with pytest.raises(PermanentError, match="no slide there"):
        await events_of(client.analyze_slide("/a.svs", request_id="job-1"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED])
async def test_a_failure_of_the_server_is_transient(server: ScriptedServer, client: InferenceClient, code: grpc.StatusCode) -> None:
    server.script = [refuse(code)]
    with pytest.raises(TransientError):
        await client.classify_lab_tests(TESTS, request_id="job-1")
    with pytest.raises(TransientError):
        await events_of(client.analyze_slide("/a.svs", request_id="job-1"))


async def test_a_deadline_that_passes_is_transient(server: ScriptedServer) -> None:
    server.script = [hang()]
    async with InferenceClient(server.address, timeouts=Timeouts(labs=0.2, slide=0.2), retries=QUICK) as client:
        with pytest.raises(TransientError, match="DEADLINE_EXCEEDED"):
            await client.classify_lab_tests(TESTS, request_id="job-1")
        with pytest.raises(TransientError, match="DEADLINE_EXCEEDED"):
            await events_of(client.analyze_slide("/a.svs", request_id="job-1"))


async def test_a_stream_is_tried_again_before_its_first_event(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [refuse(grpc.StatusCode.UNAVAILABLE), answer(slide_progress(1), slide_result())]
    assert len(await events_of(client.analyze_slide("/a.svs", request_id="job-1"))) == 2
    assert len(server.requests) == 2


async def test_a_stream_that_breaks_midway_is_not_begun_again(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [refuse(grpc.StatusCode.UNAVAILABLE, "going down", after=(slide_progress(1),))]
    stream = client.analyze_slide("/a.svs", request_id="job-1")
    assert isinstance(await anext(stream), SlideProgress)
    with pytest.raises(OverloadError, match="going down"):
        await anext(stream)
    assert len(server.requests) == 1


async def test_a_server_that_vanishes_midway_is_an_overload() -> None:
    async with scripted_server() as server:
        server.script = [hang(slide_progress(1))]
        client = InferenceClient(server.address, retries=QUICK)
        stream = client.analyze_slide("/a.svs", request_id="job-1")
        assert isinstance(await anext(stream), SlideProgress)
    with pytest.raises((OverloadError, TransientError)):
        await anext(stream)
    await client.close()


async def test_a_stream_that_ends_without_its_result_is_transient(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [answer(slide_progress(1))]
    with pytest.raises(TransientError, match="without a result"):
        await events_of(client.analyze_slide("/a.svs", request_id="job-1"))


async def test_a_silent_stream_is_given_up(server: ScriptedServer) -> None:
    server.script = [hang(slide_progress(1))]
    async with InferenceClient(server.address, timeouts=Timeouts(slide=100, idle=0.5), retries=QUICK) as client:
        with pytest.raises(TransientError, match=r"sent nothing for 0\.5 s"):
            await events_of(client.analyze_slide("/a.svs", request_id="job-1"))
        await asyncio.wait_for(server.cancelled.wait(), 60)


async def test_cancelling_the_task_cancels_the_call(server: ScriptedServer) -> None:
    async with InferenceClient(server.address, retries=QUICK) as client:
        calls = [
            lambda: events_of(client.analyze_slide("/a.svs", request_id="job-1")),
            lambda: client.classify_lab_tests(TESTS, request_id="job-1"),
        ]
        for call, behaviour in zip(calls, [hang(slide_progress(1)), hang()], strict=True):
            server.script, server.begun, server.cancelled = [behaviour], asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(call())
            await asyncio.wait_for(server.begun.wait(), 60)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(server.cancelled.wait(), 60)


async def test_leaving_a_stream_at_its_result_cancels_nothing(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [answer(slide_progress(1), slide_result())]
    stream = client.analyze_slide("/a.svs", request_id="job-1")
    async for event in stream:
        if isinstance(event, SlideResult):
            await stream.aclose()
    await asyncio.sleep(0.1)
    assert not server.cancelled.is_set()


async def test_a_result_whose_call_then_fails_does_not_count(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [refuse(grpc.StatusCode.INTERNAL, after=(slide_result(),))]
    with pytest.raises(TransientError):
        await events_of(client.analyze_slide("/a.svs", request_id="job-1"))


async def test_leaving_a_stream_cancels_its_call(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [hang(slide_progress(1))]
    stream = client.analyze_slide("/a.svs", request_id="job-1")
    await anext(stream)
    await stream.aclose()
    await asyncio.wait_for(server.cancelled.wait(), 60)


async def test_closing_the_client_under_a_call_is_an_overload_and_no_cancellation(server: ScriptedServer) -> None:
    server.script = [hang(slide_progress(1))]
    client = InferenceClient(server.address, retries=QUICK)
    task = asyncio.create_task(events_of(client.analyze_slide("/a.svs", request_id="job-1")))
    await asyncio.wait_for(server.begun.wait(), 60)
    await asyncio.sleep(0.05)
    await client.close()
    with pytest.raises(OverloadError, match="channel"):
        await task


async def test_a_message_that_is_too_big_is_permanent() -> None:
    async with scripted_server(message_bytes=10_000) as server:
        server.script = [answer(document_summary())]
        async with InferenceClient(server.address, retries=QUICK) as client:
            with pytest.raises(PermanentError, match="larger than"):
                await events_of(client.recognize_document(request_id="job-1", content=bytes(20_000)))
        async with InferenceClient(server.address, retries=QUICK, message_bytes=15_000) as client:
            with pytest.raises(PermanentError, match="larger than"):
                await events_of(client.recognize_document(request_id="job-1", content=bytes(20_000)))


async def test_messages_beyond_four_megabytes_pass(server: ScriptedServer, client: InferenceClient) -> None:
    server.script = [answer(document_summary())]
    await events_of(client.recognize_document(request_id="job-1", content=bytes(8 * 1024 * 1024)))
    assert len(server.requests[0].content) == 8 * 1024 * 1024
