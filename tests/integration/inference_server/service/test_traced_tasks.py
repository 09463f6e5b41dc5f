"""Traces of slides, documents and lab tests, with the built-in models; and of callers who may not."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc
from lamina.v1 import documents_pb2, documents_pb2_grpc, labs_pb2, labs_pb2_grpc, slides_pb2, slides_pb2_grpc
from PIL import Image

from tests.support.documents.printed_pages import lab_report_pdf
from tests.support.inference_server.running_application import running_application
from tests.support.models.built_models import built_models
from tests.support.models.requests import failure
from tests.support.servers.trace_collector import Collected, TraceCollector, trace_collector

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METADATA = (("traceparent", f"00-{TRACE}-{CALLER}-01"),)


@asynccontextmanager
async def traced(models: Path, folder: Path, **settings: object) -> AsyncIterator[tuple[grpc.aio.Channel, TraceCollector]]:
    with trace_collector() as collector:
        async with (
            running_application(models, folder, otlp_endpoint=collector.endpoint, trace_rate=0, **settings) as application,
            grpc.aio.insecure_channel(application.grpc.address) as channel,
        ):
            yield channel, collector


def _models_below(root: Collected, spans: list[Collected]) -> set[str]:
    """The models whose queue, batch and engine are told below a request."""
    below = [span for span in spans if span.parent == root.id]
    batches = {span.id: span.attributes["lamina.model"] for span in below if span.name == "batch"}
    engines = {batches[span.parent] for span in spans if span.name == "engine" and span.parent in batches}
    queues = {span.attributes["lamina.model"] for span in below if span.name == "queue"}
    assert queues == set(batches.values()) == engines
    return engines


@pytest.mark.timeout(300)  # it loads all built-in models
async def test_slides_documents_and_lab_tests_are_traced_through_all_their_models(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 150, 200)).save(picture, "PNG")
    async with traced(built_models(), tmp_path, engine="onnxruntime:float32") as (channel, collector):
        tiles = slides_pb2.AnalyzeTilesRequest(tiles=[slides_pb2.Tile(id="t", encoded=picture.getvalue())], mpp=0.5)
        await slides_pb2_grpc.SlideServiceStub(channel).AnalyzeTiles(tiles, metadata=METADATA)
        document = documents_pb2.RecognizeDocumentRequest(content=lab_report_pdf(), request_id="job-1")
        async for _ in documents_pb2_grpc.DocumentServiceStub(channel).RecognizeDocument(document, metadata=METADATA):
            pass
        texts = labs_pb2.EmbedRequest(texts=["glucose"])
        await labs_pb2_grpc.LabServiceStub(channel).Embed(texts, metadata=METADATA)

        def whole(spans: list[Collected]) -> list[Collected]:
            return spans if sum(span.parent == CALLER for span in spans) == 3 else []

        spans = await asyncio.to_thread(collector.wait_for, whole)
    roots = {span.name.removeprefix("lamina.v1."): span for span in spans if span.parent == CALLER}
    assert {name: _models_below(root, spans) for name, root in roots.items()} == {
        "SlideService/AnalyzeTiles": {"he_baseline"},
        "DocumentService/RecognizeDocument": {"ppocrv6_small_det", "ppocrv6_small_rec"},
        "LabService/Embed": {"all_minilm_l6_v2"},
    }
    assert roots["DocumentService/RecognizeDocument"].attributes["lamina.request_id"] == "job-1"
    told = b"".join(span.message.SerializeToString() for span in spans)
    assert not [secret for secret in (b"Siti Rahayu", b"glucose", b"Hemoglobin") if secret in told]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_who_may_not_is_refused_as_ever_and_told_by_the_class_of_the_refusal(
    small_repository: Path, tmp_path: Path, stream: bool
) -> None:
    (tmp_path / "tokens").write_text("bridge a-token-of-the-bridge infer\n")
    async with traced(small_repository, tmp_path, tokens_file=tmp_path / "tokens") as (channel, collector):
        request = wire.ModelInferRequest(model_name="slow")
        if stream:
            call = documents_pb2_grpc.DocumentServiceStub(channel).RecognizeDocument(
                documents_pb2.RecognizeDocumentRequest(), metadata=(*METADATA, ("authorization", "Bearer a-token-of-the-bridge"))
            )
            code, _ = await failure(call.read())
        else:
            code, _ = await failure(wire_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=METADATA))
        (span,) = await asyncio.to_thread(collector.wait_for, lambda spans: spans)
    refusal = (grpc.StatusCode.PERMISSION_DENIED, "PermissionMissing") if stream else (grpc.StatusCode.UNAUTHENTICATED, "Unauthenticated")
    assert (code, span.attributes["error.type"]) == refusal
    assert (span.failed, span.attributes["rpc.grpc.status_code"], span.trace_id) == (True, code.value[0], TRACE)
    assert b"token" not in span.message.SerializeToString()
