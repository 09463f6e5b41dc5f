"""What is told of traced requests that share a batch with others, fail, or fall back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inference_server.errors import DeviceFailed, ModelFailed, Overloaded
from inference_server.scheduler.dispatch.admission import QueueLimits
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.spans import Span
from inference_server.telemetry import OpenTelemetryTracer
from tests.support.inference_server.serving import ask, serving
from tests.support.models import onnx_models
from tests.support.models.reference_engine import ReferenceLoader, gpu_selector, selector

BATCHES = 'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [4] }'


class Traces:
    """Traces requests, and gives back what was told of them."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._tracer = OpenTelemetryTracer(self._exporter, version="1")

    def begin(self, name: str) -> Span:
        return self._tracer.begin(name, start=time.monotonic(), parent=None, attributes={})

    def ended(self, *requests: Span) -> dict[str, list[ReadableSpan]]:
        """The spans that ended, by name."""
        for request in requests:
            request.end()
        self._tracer.close()
        spans: dict[str, list[ReadableSpan]] = {}
        for span in self._exporter.get_finished_spans():
            spans.setdefault(span.name, []).append(span)
        return spans


@pytest.fixture
def traces() -> Iterator[Traces]:
    return Traces()


def _told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_requests_that_nobody_traces_share_a_traced_batch_and_leave_no_span(tmp_path: Path, traces: Traces) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    first, second = traces.begin("first"), traces.begin("second")
    async with serving(tmp_path, selector(ReferenceLoader())) as models:
        await asyncio.gather(ask(models), ask(models, trace=first), ask(models, rows=2), ask(models, trace=second))
    spans = traces.ended(first, second)
    assert {name: len(each) for name, each in spans.items()} == {"first": 1, "second": 1, "queue": 2, "batch": 2, "engine": 1}
    leading, other = spans["batch"]
    if spans["engine"][0].parent.span_id != leading.context.span_id:  # type: ignore[union-attr]
        leading, other = other, leading
    assert (_told(leading)["lamina.requests"], _told(leading)["lamina.rows"]) == (4, 5)
    assert {link.context.span_id for link in leading.links} == {spans[name][0].context.span_id for name in ("first", "second")}
    assert [link.context.span_id for link in other.links] == [leading.context.span_id]


async def test_a_run_that_fails_is_told_by_its_class(tmp_path: Path, traces: Traces) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    engine, request = ReferenceLoader(), traces.begin("request")
    async with serving(tmp_path, selector(engine)) as models:
        engine.failure = ModelFailed("the weights of patient 7 are gone")
        with pytest.raises(ModelFailed):
            await ask(models, trace=request)
    spans = traces.ended(request)
    assert [_told(spans[name][0])["error.type"] for name in ("batch", "engine")] == ["ModelFailed"] * 2
    assert not spans["queue"][0].status.description
    assert "patient" not in "".join(span.to_json() for each in spans.values() for span in each)


async def test_a_fallback_to_the_cpu_is_told_on_the_request_and_the_engine(tmp_path: Path, traces: Traces) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"{BATCHES} instance_group {{ kind: KIND_GPU gpus: [0] }}")
    cpu, gpu = ReferenceLoader("cpu"), ReferenceLoader("gpu")
    request = traces.begin("request")
    engines = {"cuda:0": gpu_selector(cpu, gpu), "cpu": selector(cpu)}
    async with serving(tmp_path, engines, options=SchedulingOptions(cpu_fallback=True)) as models:
        gpu.failure = DeviceFailed("no memory", cause="out_of_memory")
        answer = await ask(models, trace=request)
    spans = traces.ended(request)
    assert answer.fallback == "out_of_memory"
    assert [(event.name, dict(event.attributes or {})) for event in spans["request"][0].events] == [
        ("fallback", {"lamina.fallback": "out_of_memory"})
    ]
    assert (_told(spans["engine"][0])["lamina.fallback"], _told(spans["engine"][0])["lamina.engine"]) == ("out_of_memory", "cpu:float32")


async def test_a_refusal_names_the_limit(tmp_path: Path, traces: Traces) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=BATCHES)
    engine, request = ReferenceLoader(), traces.begin("request")
    async with serving(
        tmp_path, selector(engine), options=SchedulingOptions(limits=QueueLimits(max_requests=1, max_bytes=2**20))
    ) as models:
        with engine.held():
            running = ask(models)
            await engine.begun()
            with pytest.raises(Overloaded):
                await ask(models, trace=request)
        await running
    (refused,) = traces.ended(request)["request"][0].events
    assert (refused.name, dict(refused.attributes or {})) == ("refused", {"error.type": "Overloaded", "lamina.limit": "queue_requests"})


async def test_an_answer_that_was_kept_is_told(tmp_path: Path, traces: Traces) -> None:
    onnx_models.write_model(tmp_path, "double", onnx_models.double(), config=f"{BATCHES} response_cache {{ enable: true }}")
    miss, hit = traces.begin("miss"), traces.begin("hit")
    async with serving(tmp_path, selector(ReferenceLoader())) as models:
        await ask(models, trace=miss)
        await ask(models, trace=hit)
    spans = traces.ended(miss, hit)
    assert ([event.name for event in spans["hit"][0].events], len(spans["batch"])) == (["cache_hit"], 1)
