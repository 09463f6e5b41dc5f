"""Traces through whole bridges: from a message to the inference server and to the result, with and without OpenTelemetry."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from lamina.v1 import labs_pb2
from redis.asyncio import Redis

from bridge.app import Bridge, local_transport
from bridge.aws.access import Aws
from bridge.errors import ConfigurationError
from bridge.ledger.port import State
from bridge.served import Systems, open_systems
from bridge.settings import load
from bridge.sinks.sqs import SqsQueues
from bridge.store import Store, open_store
from bridge.surroundings import open_tracer
from bridge.tracing import otel
from bridge.transports.opening import open_transport
from tests.support.bridge.scripted_server import ScriptedServer, answer, refuse, scripted_server
from tests.support.bridge.trial_bridge import TrialHandler, message, trial_settings
from tests.support.patience import PATIENCE_SECONDS
from tests.support.servers.ministack import Ministack
from tests.support.servers.pubsub_server import pubsub_server
from tests.support.servers.redis import RedisServer
from tests.support.servers.sqs import aws_of, fresh_queue, lying_in
from tests.support.servers.trace_collector import Collected, TraceCollector, trace_collector

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
LABS = {"system": "labs", "key": "order", "request": {"tests": [{"name": "Hb"}]}}
ANSWER = labs_pb2.ClassifyLabTestsResponse(
    classifications=[labs_pb2.LabTestClassification(id="1", category="hematology", status=labs_pb2.MATCH_STATUS_NO_MATCH)]
)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause of the machine is no collector that is away, for which nobody waits."""
    monkeypatch.setattr(otel, "_EXPORT_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(otel, "_CLOSE_SECONDS", PATIENCE_SECONDS)


@asynccontextmanager
async def _running(folder: Path, *, trial: bool = False, **changes: Any) -> AsyncIterator[Store]:
    # No lease runs out over a pause of the machine: each message is received once.
    settings = load(**trial_settings(folder, **{"lease_seconds": 60.0, **changes}))
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        tracer = await stack.enter_async_context(open_tracer(settings))
        store = await stack.enter_async_context(open_store(settings))
        trials = Systems(handlers=[TrialHandler()])
        systems = trials if trial else await stack.enter_async_context(open_systems(settings, store, tracer))
        transport = await stack.enter_async_context(open_transport(settings, local=local_transport(settings, store)))
        running = asyncio.create_task(Bridge(settings, store, systems, transport=transport, tracer=tracer).run(stop, asyncio.Event()))
        try:
            yield store
        finally:
            stop.set()
            await asyncio.wait_for(running, 60)


async def _ended(store: Store, key: str, state: State = State.SUCCEEDED) -> None:
    async with asyncio.timeout(60):
        while (job := await store.jobs.find(key)) is None or job.finished_at is None or not await store.all_sent():
            await asyncio.sleep(0.02)
    assert state == job.state, job.last_error


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        server.script = [answer(ANSWER)]
        yield server


@pytest.fixture
async def aws(ministack: Ministack) -> AsyncIterator[Aws]:
    async with aws_of(ministack) as aws:
        yield aws


def _traced(collector: TraceCollector) -> dict[str, str]:
    return {"traces": "otlp", "traces_endpoint": collector.endpoint}


async def _through_sqs(aws: Aws, ministack: Ministack, server: ScriptedServer, folder: Path, **changes: Any) -> dict[str, str]:
    """Send a lab list with a trace; returns the attributes of its result."""
    queue, results = await fresh_queue(aws), await fresh_queue(aws)
    sent = {"traceparent": PARENT, "tracestate": "vendor=1"}
    await SqsQueues(aws).send(queue, json.dumps(LABS).encode(), message_id="1", attributes=sent)
    named = {"sqs_queues": (queue,), "results_queue": results, "aws_endpoint": ministack.endpoint, "inference": server.address}
    async with _running(folder, **named, **changes) as store:
        await _ended(store, "order")
    [(attributes, body)] = await lying_in(aws, results)
    assert TRACE_ID == json.loads(body)["traceparent"].split("-")[1]
    return dict(attributes)


async def test_without_opentelemetry_a_trace_is_passed_on_as_it_came(
    aws: Aws, ministack: Ministack, server: ScriptedServer, tmp_path: Path
) -> None:
    attributes = await _through_sqs(aws, ministack, server, tmp_path)

    assert (PARENT, "vendor=1") == (attributes["traceparent"], attributes["tracestate"])
    assert (PARENT, "vendor=1") == (server.metadata[0]["traceparent"], server.metadata[0]["tracestate"])


@pytest.mark.usefixtures("patient")
async def test_every_part_of_the_work_is_a_span_of_the_messages_trace(
    aws: Aws, ministack: Ministack, server: ScriptedServer, tmp_path: Path
) -> None:
    with trace_collector() as collector:
        attributes = await _through_sqs(aws, ministack, server, tmp_path, **_traced(collector), traces_headers="x-key=secret")
        told = {span.name: span for span in collector.spans}

    def one(start: str) -> Collected:
        [span] = collector.named(start)
        return span

    receive, job, call, send = one("receive "), one("job labs"), one("lamina.v1.LabService/ClassifyLabTests"), one("send completed")
    assert {TRACE_ID} == {span.trace_id for span in collector.spans}
    assert {"lamina-bridge"} == {span.resource["service.name"] for span in collector.spans}
    assert ("b7ad6b7169203331", "b7ad6b7169203331") == (receive.parent, job.parent)
    assert (job.id, job.id) == (call.parent, send.parent)
    assert f"00-{TRACE_ID}-{call.id}-01" == server.metadata[0]["traceparent"]
    assert f"00-{TRACE_ID}-{send.id}-01" == attributes["traceparent"]
    before, after = ("received", "read"), ("claimed", "handled", "committed", "acknowledged")
    assert [receive.id] * 2 + [job.id] * 4 == [told[f"step {step}"].parent for step in (*before, *after)]
    assert job.start <= told["step handled"].start <= call.start <= call.end <= told["step handled"].end + 10_000_000
    assert ("order", "done") == (job.attributes["lamina.job.key"], job.attributes["lamina.outcome"])
    assert not [span.name for span in collector.spans if span.failed]
    assert "secret" == collector.metadata[0]["x-key"]


@pytest.mark.usefixtures("patient")
async def test_a_call_that_fails_is_a_span_that_failed(server: ScriptedServer, tmp_path: Path) -> None:
    import grpc

    server.script = [refuse(grpc.StatusCode.INVALID_ARGUMENT)]
    with trace_collector() as collector:
        async with _running(tmp_path, inference=server.address, **_traced(collector)) as store:
            await store.submit(json.dumps(LABS).encode())
            await _ended(store, "order", State.FAILED)
        [call] = collector.named("lamina.v1.LabService/ClassifyLabTests")

    assert call.failed


@pytest.mark.usefixtures("patient")
async def test_whoever_takes_a_job_over_goes_on_with_its_trace(tmp_path: Path) -> None:
    """The message tells no trace: the first bridge begins one, and the ledger keeps it."""
    with trace_collector() as collector:
        traced = {**_traced(collector), "trial": True, "drain_seconds": 0.0}
        async with _running(tmp_path, **traced) as store:
            await store.submit(message("one", parts=60, part_seconds=0.05))
            async with asyncio.timeout(60):
                while (job := await store.jobs.find("one")) is None or not job.progress:
                    await asyncio.sleep(0.02)
        async with _running(tmp_path, **traced) as store:
            await _ended(store, "one")
        first, second = collector.named("job trial")
        receipts = collector.named("receive jobs")

    assert first.trace_id == second.trace_id
    assert first.id != second.id
    assert {first.trace_id} == {span.trace_id for span in collector.spans}, "no span of a second trace is told"
    assert 2 == len(receipts)


async def test_a_collector_that_is_away_stops_no_work(tmp_path: Path) -> None:
    async with _running(tmp_path, trial=True, traces="otlp", traces_endpoint="http://127.0.0.1:1") as store:
        await store.submit(message("one"))
        await _ended(store, "one")


async def test_a_trace_goes_through_pubsub(tmp_path: Path) -> None:
    async with pubsub_server() as server:
        server.create("jobs", "jobs-sub")
        server.create("results")
        named = {"pubsub_subscriptions": "jobs-sub", "pubsub_project": "trial", "pubsub_emulator": server.address}
        async with _running(tmp_path, trial=True, **named) as store:
            server.publish("jobs", message("one"), googclient_traceparent=PARENT)
            await _ended(store, "one")
        [result] = server.topics["projects/trial/topics/results"]

    assert PARENT == result.attributes["traceparent"]


async def test_a_trace_goes_through_redis_in_the_body(redis: RedisServer, server: ScriptedServer, tmp_path: Path) -> None:
    queue, client = f"trial:{uuid4()}", Redis.from_url(redis.url)
    named = {"redis_queues": queue, "redis_url": redis.url, "results_queue": f"{queue}:results", "inference": server.address}
    async with _running(tmp_path, **named) as store:
        await client.rpush(queue, json.dumps({**LABS, "traceparent": PARENT}))
        await _ended(store, "order")
        result = json.loads(await client.get(f"{queue}:results:order:completed") or b"{}")
    await client.aclose()

    assert (PARENT, PARENT) == (result["traceparent"], server.metadata[0]["traceparent"])


def test_opentelemetry_is_not_even_loaded_while_it_is_off() -> None:
    script = (
        "import sys, bridge.app, bridge.surroundings, bridge.settings, bridge.inference.client\n"
        "bridge.surroundings.tracer(bridge.settings.load())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "[]" == done.stdout.strip()


def test_the_variables_of_opentelemetry_are_read_and_ours_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "slides")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    monkeypatch.setenv("BRIDGE_TRACES_SERVICE", "ours")
    settings = load()
    assert ("otlp", "http://collector:4317", "ours", 0.25) == (
        settings.traces,
        settings.traces_endpoint,
        settings.traces_service,
        settings.traces_ratio,
    )
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert "off" == load().traces


async def test_an_address_of_a_collector_that_is_none_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match="BRIDGE_TRACES_ENDPOINT"):
        async with open_tracer(load(traces="otlp", traces_endpoint="collector:4317")):
            pass
