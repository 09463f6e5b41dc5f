"""Traces, as a real collector receives them of the whole server in this process."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc
from lamina.v1 import slides_pb2, slides_pb2_grpc

from inference_server import telemetry
from inference_server.application import Application
from tests.support.inference_server.running_application import running_application
from tests.support.models.held_runs import held_runs
from tests.support.models.requests import failure, floats, infer_request, steps
from tests.support.patience import until
from tests.support.servers.trace_collector import Collected, TraceCollector, trace_collector

pytestmark = pytest.mark.asyncio(loop_scope="module")

INFER, STREAM = "inference.GRPCInferenceService/ModelInfer", "inference.GRPCInferenceService/ModelStreamInfer"


@pytest.fixture(scope="module")
def collector() -> Iterator[TraceCollector]:
    with trace_collector() as collector:
        yield collector


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def application(
    small_repository: Path, collector: TraceCollector, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Application]:
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "50"  # milliseconds; the library's own variable
    try:
        folder = tmp_path_factory.mktemp("server")
        # Only what callers trace, so that tests do not see each other's requests.
        async with running_application(small_repository, folder, otlp_endpoint=collector.endpoint, trace_rate=0) as application:
            yield application
    finally:
        del os.environ["OTEL_BSP_SCHEDULE_DELAY"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(application: Application) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(application.grpc.address) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return wire_grpc.GRPCInferenceServiceStub(channel)


class CallersTrace:
    """A trace that the caller records."""

    def __init__(self, *, sampled: bool = True, **more: str) -> None:
        self.id, self.span = secrets.token_hex(16), secrets.token_hex(8)
        self.metadata = (("traceparent", f"00-{self.id}-{self.span}-{int(sampled):02}"), *more.items())

    async def spans(self, collector: TraceCollector, *, requests: int = 1) -> list[Collected]:
        """All its spans, once those of so many requests came; a request's own span ends last."""

        def whole(spans: Sequence[Collected]) -> list[Collected]:
            mine = [span for span in spans if span.trace_id == self.id]
            return mine if sum(span.parent == self.span for span in mine) == requests else []

        found: list[Collected] = await asyncio.to_thread(collector.wait_for, whole)
        return found


def _sum(**options: Any) -> wire.ModelInferRequest:
    return infer_request("sum_and_difference", a=floats(1, 2), b=floats(2, 3), **options)


def _one(spans: Sequence[Collected], name: str) -> Collected:
    (found,) = [span for span in spans if span.name == name]
    return found


async def test_a_request_is_traced_through_queue_batch_and_engine_in_its_callers_trace(stub: Any, collector: TraceCollector) -> None:
    trace = CallersTrace(tracestate="vendor=value")
    await stub.ModelInfer(_sum(id="r-1"), metadata=trace.metadata)
    spans = await trace.spans(collector)
    request, queue, batch, engine = (_one(spans, name) for name in (INFER, "queue", "batch", "engine"))
    assert (request.parent, queue.parent, batch.parent, engine.parent) == (trace.span, request.id, request.id, batch.id)
    assert request.attributes == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
        "lamina.model": "sum_and_difference",
        "lamina.model_version": "1",
        "lamina.request_id": "r-1",
    }
    assert {"lamina.model": "sum_and_difference", "lamina.model_version": "1"} == queue.attributes
    assert (batch.attributes["lamina.requests"], batch.attributes["lamina.rows"], batch.links) == (1, 2, [request.id])
    assert engine.attributes == {"lamina.engine": "onnxruntime:float32", "lamina.rows": 2}
    assert list(engine.events) == ["inputs_joined", "outputs_computed"]
    assert request.start <= queue.start <= queue.end == batch.start <= engine.start <= engine.end <= batch.end <= request.end
    assert not any(span.failed for span in spans)
    assert request.state == "vendor=value"
    assert request.resource["service.name"] == "lamina-inference-server"


async def test_a_batch_links_to_all_its_requests_and_each_of_them_has_it_in_its_trace(stub: Any, collector: TraceCollector) -> None:
    traces = [CallersTrace() for _ in range(3)]
    requests = [stub.ModelInfer(_sum(id=str(number)), metadata=trace.metadata) for number, trace in enumerate(traces)]
    await asyncio.gather(*requests)
    by_trace = [await trace.spans(collector) for trace in traces]
    batches = [_one(spans, "batch") for spans in by_trace]
    roots = {_one(spans, INFER).id for spans in by_trace}
    leading = [batch for batch in batches if roots & set(batch.links)]
    linked = [link for batch in leading for link in batch.links]
    assert sorted(linked) == sorted(roots)  # each request in the links of exactly one batch
    assert {batch.attributes["lamina.requests"] for batch in leading} == {len(batch.links) for batch in leading}
    others = [batch for batch in batches if batch not in leading]
    assert all(set(other.links) <= {batch.id for batch in leading} for other in others)


async def test_a_failure_is_told_by_its_class_and_status_and_what_was_sent_stays_here(stub: Any, collector: TraceCollector) -> None:
    trace = CallersTrace(baggage="patient=Jane%20Roe")
    request = infer_request("sum_and_difference", id="r-2", **{"secret-name": floats(1)})
    await failure(stub.ModelInfer(request, metadata=trace.metadata))
    spans = await trace.spans(collector)
    root = _one(spans, INFER)
    assert (root.failed, root.attributes["error.type"], root.attributes["rpc.grpc.status_code"]) == (True, "InvalidTensor", 3)
    assert root.events == {"refused": {"error.type": "InvalidTensor"}}
    told = b"".join(span.message.SerializeToString() for span in spans)
    assert not [secret for secret in (b"Jane", b"patient", b"secret-name") if secret in told]


async def test_a_request_that_never_got_its_turn_has_a_queue_and_no_run(
    application: Application, stub: Any, collector: TraceCollector
) -> None:
    admission = application.models.admission
    with held_runs() as held:
        blocking = asyncio.ensure_future(stub.ModelInfer(infer_request("slow", steps=steps(1))))
        await held.begun()
        left = CallersTrace()
        waiting = stub.ModelInfer(infer_request("slow", steps=steps(1)), metadata=left.metadata)
        await until(lambda: admission.requests == 2)
        expired = await _expired_in_the_queue(stub, lambda: admission.requests == 3)
        waiting.cancel()
        await until(lambda: admission.requests == 1)
    await asyncio.gather(blocking, waiting, return_exceptions=True)
    names = {trace: {span.name: span for span in await trace.spans(collector)} for trace in (expired, left)}
    assert [set(spans) for spans in names.values()] == [{INFER, "queue"}] * 2
    assert [spans["queue"].failed for spans in names.values()] == [True, True]
    # gRPC's own clock and the queue's end it at the same time; either may be the first.
    assert names[expired]["queue"].attributes["error.type"] in ("DeadlineExceeded", "CancelledError")
    assert (names[left]["queue"].attributes["error.type"], names[left][INFER].attributes["rpc.grpc.status_code"]) == ("CancelledError", 1)


async def _expired_in_the_queue(stub: Any, is_queued: Callable[[], bool]) -> CallersTrace:
    """The trace of a request whose deadline passed when it had reached the queue, which a slow machine may not do by an early one."""
    for seconds in (3, 9, 27):
        trace = CallersTrace()
        call = stub.ModelInfer(infer_request("slow", steps=steps(1)), metadata=trace.metadata, timeout=seconds)
        await until(lambda call=call: is_queued() or call.done())
        queued = is_queued()
        await failure(call)
        if queued:
            return trace
    raise AssertionError("it never reached the queue")


async def test_each_request_of_a_stream_is_traced_by_itself(stub: Any, collector: TraceCollector) -> None:
    trace = CallersTrace()
    requests = [_sum(id="a"), infer_request("none", id="b", a=floats(1)), _sum(id="c")]
    assert len([answer async for answer in stub.ModelStreamInfer(iter(requests), metadata=trace.metadata)]) == 3
    spans = await trace.spans(collector, requests=3)
    roots = {span.attributes["lamina.request_id"]: span for span in spans if span.name == STREAM}
    assert {id: span.attributes["rpc.grpc.status_code"] for id, span in roots.items()} == {"a": 0, "b": 5, "c": 0}
    assert {span.parent for span in spans if span.name == "queue"} == {roots["a"].id, roots["c"].id}


async def test_a_request_of_a_stream_that_a_leaving_server_cuts_off_is_traced_with_the_streams_status(
    small_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "_CLOSE_SECONDS", 60.0)
    trace = CallersTrace()
    with trace_collector() as collector:
        async with (
            running_application(small_repository, tmp_path, otlp_endpoint=collector.endpoint, drain_seconds=0) as application,
            grpc.aio.insecure_channel(application.grpc.address) as channel,
        ):
            with held_runs() as held:
                requests = iter([infer_request("slow", steps=steps(1))])
                answers = wire_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(requests, metadata=trace.metadata)
                reading = asyncio.ensure_future(failure(answers.read()))
                await held.begun()
                await application.grpc.stop(grace_seconds=0, drain_seconds=0, hurry=asyncio.Event())
            assert grpc.StatusCode.UNAVAILABLE is (await reading)[0]
        roots = [span for span in collector.spans if span.trace_id == trace.id and span.name == STREAM]
        assert [grpc.StatusCode.UNAVAILABLE.value[0]] == [span.attributes["rpc.grpc.status_code"] for span in roots]


async def test_slides_are_traced_too(channel: grpc.aio.Channel, collector: TraceCollector) -> None:
    trace = CallersTrace()
    tile = slides_pb2.Tile(id="t", rgb=bytes(64 * 64 * 3), width=64, height=64)
    request = slides_pb2.AnalyzeTilesRequest(analysis="he_baseline", tiles=[tile], mpp=0.5)
    await failure(slides_pb2_grpc.SlideServiceStub(channel).AnalyzeTiles(request, metadata=trace.metadata))
    (root,) = await trace.spans(collector)
    assert (root.name, root.failed) == ("lamina.v1.SlideService/AnalyzeTiles", True)
    trace = CallersTrace()
    analysis = slides_pb2_grpc.SlideServiceStub(channel).AnalyzeSlide(
        slides_pb2.AnalyzeSlideRequest(slide_uri="/nowhere/patient.svs", request_id="job-7"), metadata=trace.metadata
    )
    await failure(analysis.read())
    (root,) = await trace.spans(collector)
    assert (root.name, root.attributes["lamina.request_id"]) == ("lamina.v1.SlideService/AnalyzeSlide", "job-7")
    assert b"patient" not in root.message.SerializeToString()


async def test_refusals_before_a_message_is_read_are_traced_too(application: Application, collector: TraceCollector) -> None:
    trace = CallersTrace()
    async with grpc.aio.insecure_channel(application.grpc.address) as channel:
        call = channel.unary_unary(f"/{INFER}")(b"\xff", metadata=trace.metadata)
        assert (await failure(call))[0] is grpc.StatusCode.INVALID_ARGUMENT
    (root,) = await trace.spans(collector)
    assert (root.name, root.attributes["error.type"]) == (INFER, "InvalidInput")


async def test_what_the_caller_does_not_record_is_not_traced(stub: Any, collector: TraceCollector) -> None:
    unsampled, damaged, last = CallersTrace(sampled=False), secrets.token_hex(16), CallersTrace()
    await stub.ModelInfer(_sum(), metadata=unsampled.metadata)
    await stub.ModelInfer(_sum(), metadata=(("traceparent", f"00-{damaged}-zz-01"),))
    await stub.ModelInfer(_sum(), metadata=last.metadata)
    await last.spans(collector)
    assert not {unsampled.id, damaged} & {span.trace_id for span in collector.spans}


async def _set(stub: Any, model: str = "", **settings: str | None) -> dict[str, list[str]]:
    request = wire.TraceSettingRequest(model_name=model)
    for name, value in settings.items():
        request.settings[name].value.extend([] if value is None else [value])
    return {name: list(setting.value) for name, setting in (await stub.TraceSetting(request)).settings.items()}


async def _traced(stub: Any, collector: TraceCollector, request: wire.ModelInferRequest, count: int) -> int:
    """How many of so many requests without a trace of their callers are traced."""
    known = {span.trace_id for span in collector.spans}
    for _ in range(count):
        await stub.ModelInfer(request)
    await _flush(stub, collector)
    return len([span for span in collector.spans if span.trace_id not in known and span.name == INFER and not span.parent])


async def _flush(stub: Any, collector: TraceCollector) -> None:
    """Wait until all spans that ended came: they are sent in their order."""
    last = CallersTrace()
    await stub.ModelInfer(_sum(), metadata=last.metadata)
    await last.spans(collector)


@pytest_asyncio.fixture(loop_scope="module")
async def settings_as_before(stub: Any) -> AsyncIterator[None]:
    yield
    for model in ("sum_and_difference", "slow", ""):
        await _set(stub, model, trace_level=None, trace_rate=None, trace_count=None)


@pytest.mark.usefixtures("settings_as_before")
async def test_one_of_so_many_requests_is_traced(stub: Any, collector: TraceCollector) -> None:
    held = await _set(stub, trace_rate="3")
    assert held == {"trace_level": ["TIMESTAMPS"], "trace_rate": ["3"], "trace_count": ["-1"], "trace_mode": ["OPENTELEMETRY"]}
    assert await _traced(stub, collector, _sum(), 7) == 2


@pytest.mark.usefixtures("settings_as_before")
async def test_no_more_traces_are_begun_than_the_count_and_what_is_left_is_told(stub: Any, collector: TraceCollector) -> None:
    await _set(stub, trace_rate="1", trace_count="2")
    await stub.ModelInfer(_sum())
    assert (await _set(stub))["trace_count"] == ["1"]
    await _flush(stub, collector)
    assert await _traced(stub, collector, _sum(), 3) == 1
    assert (await _set(stub))["trace_count"] == ["0"]


@pytest.mark.usefixtures("settings_as_before")
async def test_a_model_has_settings_of_its_own_and_follows_the_others_in_what_it_does_not_set(stub: Any, collector: TraceCollector) -> None:
    await _set(stub, trace_rate="0")
    assert (await _set(stub, "sum_and_difference", trace_rate="1"))["trace_rate"] == ["1"]
    assert (await _set(stub))["trace_rate"] == (await _set(stub, "slow"))["trace_rate"] == ["0"]
    assert await _traced(stub, collector, infer_request("slow", steps=steps(1)), 3) == 0
    assert await _traced(stub, collector, _sum(), 3) == 3
    assert (await _set(stub, "sum_and_difference"))["trace_count"] == ["-1"]
    await _set(stub, trace_count="5")
    assert (await _set(stub, "sum_and_difference"))["trace_count"] == ["5"]
    await _set(stub, "sum_and_difference", trace_rate=None)
    assert (await _set(stub, "sum_and_difference"))["trace_rate"] == ["0"]


@pytest.mark.usefixtures("settings_as_before")
async def test_off_means_that_nothing_is_traced_whoever_asks(stub: Any, collector: TraceCollector) -> None:
    assert (await _set(stub, trace_level="OFF"))["trace_level"] == ["OFF"]
    off, on = CallersTrace(), CallersTrace()
    await stub.ModelInfer(_sum(), metadata=off.metadata)
    await _set(stub, trace_level="TIMESTAMPS")
    await stub.ModelInfer(_sum(), metadata=on.metadata)
    await on.spans(collector)
    assert off.id not in {span.trace_id for span in collector.spans}


REFUSED = {
    "trace_file": ("/tmp/x", grpc.StatusCode.UNIMPLEMENTED),
    "log_frequency": ("50", grpc.StatusCode.UNIMPLEMENTED),
    "trace_mode": ("triton", grpc.StatusCode.UNIMPLEMENTED),
    "trace_level": ("TENSORS", grpc.StatusCode.UNIMPLEMENTED),
    "trace_rate": ("often", grpc.StatusCode.INVALID_ARGUMENT),
    "trace_count": ("-2", grpc.StatusCode.INVALID_ARGUMENT),
    "trace_colour": ("red", grpc.StatusCode.INVALID_ARGUMENT),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_setting_that_is_not_honoured_is_refused_by_name_and_changes_nothing(stub: Any, name: str) -> None:
    value, status = REFUSED[name]
    before = await _set(stub)
    code, details = await failure(_set(stub, **{name: value}))
    assert (code, name in details) == (status, True), details
    assert await _set(stub) == before


async def test_settings_of_a_model_that_there_is_not_are_not_found(stub: Any) -> None:
    assert (await failure(_set(stub, "none", trace_rate="1")))[0] is grpc.StatusCode.NOT_FOUND


async def test_what_is_left_is_sent_when_the_server_ends(small_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_CLOSE_SECONDS", 60.0)
    trace = CallersTrace()
    with trace_collector() as collector:
        async with (
            running_application(small_repository, tmp_path, otlp_endpoint=collector.endpoint) as application,
            grpc.aio.insecure_channel(application.grpc.address) as channel,
        ):
            await wire_grpc.GRPCInferenceServiceStub(channel).ModelInfer(_sum(), metadata=trace.metadata)
        assert {span.name for span in collector.spans if span.trace_id == trace.id} == {INFER, "queue", "batch", "engine"}


async def test_a_collector_that_does_not_answer_costs_no_request_and_does_not_hold_the_end_up(
    small_repository: Path, tmp_path: Path, silent_address: str
) -> None:
    async with (
        running_application(small_repository, tmp_path, otlp_endpoint=f"http://{silent_address}") as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        for _ in range(20):
            await wire_grpc.GRPCInferenceServiceStub(channel).ModelInfer(_sum())


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Where connections are taken, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
