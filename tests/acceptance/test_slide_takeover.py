"""Slides whose bridge or server is killed in the middle: the work goes on where it was, and progress never goes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from inference import grpc_service_pb2, grpc_service_pb2_grpc

from bridge.aws.names import Names
from bridge.aws.payloads import wire_attributes
from bridge.ledger.port import JobRecord
from bridge.store import Store
from tests.support.bridge.bridge_process import BridgeSetup
from tests.support.bridge.wsi import guid
from tests.support.inference_server.server_process import ServerProcess, running_server
from tests.support.ports import free_address, free_port
from tests.support.servers.ministack import Ministack, running_ministack
from tests.support.servers.sqs import aws_of, lying_in
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.tile_models import write_classifier
from tests.support.slides.written_files import told

pytestmark = pytest.mark.timeout(600)

BUCKET = "platform-uploads"
SLIDE = "wsi/user-1/5f3759df/slide.svs"
TOPIC = "HiveOrders_Api_Shared_Events-WsiAnalysis{}Event"
MODEL = "pinkness"
TILES = 32 * 32
STAGES = ["opening", "tissue", "tiles", "writing"]
FILES = {"analysis.json", "heatmap.png", "heatmap.ome.tiff", "overlay.png", "detections.geojson.gz", "tiles.parquet"}
AGAIN = 0.05 * TILES
# Calls wait so long for others to be computed with: of four calls at a time, of ten tiles at most, all take ten seconds at least:
# a pause of the machine at half of them is not their end.
CONFIG = "max_batch_size: 64\ndynamic_batching { max_queue_delay_microseconds: 400000 }\n"


def write_inputs(folder: Path) -> Path:
    """A slide of 1024 tiles, and a model that takes its time over each, the processor's aside."""
    (write_classifier(folder / "models", mpp=0.5) / "config.pbtxt").write_text(CONFIG)
    piece = paint(512, 512, tissue=(0, 0, 512, 512), nuclei=scattered(40, within=(20, 20, 490, 490), apart=25), noise=2.0)
    return write_svs(folder / "slide.svs", np.tile(piece, (4, 4, 1)), tile=256)


def tiles_computed(server: ServerProcess) -> int:
    """What the server itself counts, once its model is loaded."""
    until = time.monotonic() + 60
    with grpc.insecure_channel(server.grpc) as channel:
        while True:
            asked = grpc_service_pb2.ModelStatisticsRequest(name=MODEL)
            try:
                reply = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStatistics(asked, timeout=30)
                return int(reply.model_stats[0].inference_count)
            except grpc.RpcError as error:
                # Never that there is no such model: a bridge would give the job up.
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > until:
                    raise
                time.sleep(0.1)


def wait_for(setup: BridgeSetup, key: str, found: Callable[[JobRecord], bool], *, seconds: float = 240) -> JobRecord:
    async def look(store: Store) -> JobRecord:
        until = time.monotonic() + seconds
        while True:
            record = {job.key: job for job in await store.jobs.list(limit=1000)}.get(key)
            if record is not None and found(record):
                return record
            assert time.monotonic() < until, f"{record}\n{(setup.folder / 'bridge.log').read_text()[-4000:]}"
            await asyncio.sleep(0.05)

    return setup.read(look)


def half_done(record: JobRecord) -> bool:
    assert not record.state.startswith("succ"), "the slide was analysed before anything could be killed"
    return bool(record.units_total) and record.units_done >= 0.5 * record.units_total


def process_at_work(setup: BridgeSetup, key: str) -> int:
    """The id of the bridge that holds a job's lease."""
    with contextlib.closing(sqlite3.connect(setup.folder / "bridge.db")) as database:
        ((worker,),) = database.execute("SELECT worker FROM jobs WHERE key = ?", (key,)).fetchall()
    return int(worker.split(":")[1])


def wait_until_up(address: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/livez", timeout=60):
                return
        except OSError:
            assert time.monotonic() < until, f"no bridge came up at {address}"
            time.sleep(0.05)


@dataclass
class Listener:
    """Reads the events of a job from one bridge until they end, as a browser does: it connects again, and says what it has seen."""

    url: str
    told: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    _seen: str = ""

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        until = time.monotonic() + 300
        while time.monotonic() < until and not (self.told and self.told[-1][0] in {"completed", "failed"}):
            try:
                self._listen()
            except OSError:  # there is no job yet
                time.sleep(0.2)

    def _listen(self) -> None:
        request = urllib.request.Request(self.url, headers={"Last-Event-ID": self._seen})
        event: dict[str, str] = {}
        with urllib.request.urlopen(request, timeout=60) as reply:
            for line in reply:
                text = line.decode().rstrip()
                if text:
                    name, _, value = text.partition(": ")
                    event[name] = value
                elif "data" in event:
                    self._seen = event["id"]
                    self.told.append((event["event"], json.loads(event["data"])))
                    event = {}


async def prepare(ministack: Ministack, slide: Path) -> None:
    async with aws_of(ministack) as aws:
        await aws.call("s3", "create_bucket", Bucket=BUCKET)
        await aws.call("s3", "put_object", Bucket=BUCKET, Key=SLIDE, Body=slide.read_bytes())
        await aws.call("sqs", "create_queue", QueueName="WsiAnalysisSagaState")
        names = Names(aws)
        await aws.call(
            "sns",
            "subscribe",
            TopicArn=await names.topic_arn(TOPIC.format("Completed")),
            Protocol="sqs",
            Endpoint=await names.arn("sqs", "WsiAnalysisSagaState"),
            Attributes={"RawMessageDelivery": "true"},
        )


async def ask(ministack: Ministack, name: str) -> None:
    event = {"jobId": guid(name), "uploadId": guid("upload"), "tenantId": 7, "requestedByUserId": "user-1", "s3Key": SLIDE}
    envelope = {
        "messageId": guid(f"message of {name}"),
        "messageType": ["urn:message:HiveOrders.Api.Shared.Events:WsiAnalysisRequestedEvent"],
    }
    async with aws_of(ministack) as aws:
        attributes = wire_attributes({"Content-Type": "application/vnd.masstransit+json"})
        topic = await Names(aws).topic_arn(TOPIC.format("Requested"))
        await aws.call("sns", "publish", TopicArn=topic, Message=json.dumps({**envelope, "message": event}), MessageAttributes=attributes)


async def left_in_bucket(ministack: Ministack) -> tuple[dict[str, bytes], list[Any]]:
    async with aws_of(ministack) as aws:
        listed = (await aws.call("s3", "list_objects_v2", Bucket=BUCKET, Prefix="results/")).get("Contents", ())
        objects = {one["Key"]: await aws.fetch(BUCKET, one["Key"], most_bytes=1 << 30) for one in listed}
        return objects, [json.loads(body) for _, body in await lying_in(aws, "WsiAnalysisSagaState", wait_seconds=2)]


@dataclass(frozen=True, kw_only=True)
class TakenOver:
    """What there was to see of a slide whose bridge was killed, and of the same slide undisturbed."""

    killed_at: JobRecord
    job: JobRecord
    undisturbed: JobRecord
    computed: int
    told: list[tuple[str, Mapping[str, Any]]]
    objects: Mapping[str, bytes]
    answers: list[Any]


@pytest.fixture(scope="module")
def taken_over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TakenOver]:
    folder = tmp_path_factory.mktemp("takeover")
    with running_ministack(folder) as ministack, pytest.MonkeyPatch.context() as patch:
        for name, value in ministack.environment().items():
            patch.setenv(name, value)
        yield _kill_the_bridge(folder, ministack)


def _kill_the_bridge(folder: Path, ministack: Ministack) -> TakenOver:
    slide = write_inputs(folder)
    variables = {
        "AWS__ServiceUrl": ministack.endpoint,
        "AWS__Region": "us-east-1",
        "AWS__S3__BucketName": BUCKET,
        "BRIDGE_SQS_QUEUES": "WsiAnalysisWorker",
        "BRIDGE_WSI_ANALYSIS": MODEL,
        # No second bridge takes a slide over because the first has paused.
        "BRIDGE_LEASE_SECONDS": "10",
    }
    addresses = free_address(), free_address()
    roots = ("--read-roots", f"s3://{BUCKET}/wsi/", "--write-roots", f"s3://{BUCKET}/results/", "--allow-http")
    with ExitStack() as stack:
        server = stack.enter_context(running_server(folder / "models", folder, "--engine", "onnxruntime", "--threads", "1", *roots))
        setup = BridgeSetup(folder=folder, inference=server.grpc, variables=variables)
        setup.call("topology", "apply")
        asyncio.run(prepare(ministack, slide))
        before = tiles_computed(server)
        bridges = {}
        for address in addresses:
            one = stack.enter_context(replace(setup, variables={**variables, "BRIDGE_HTTP": address}).running())
            wait_until_up(address)
            bridges[one.pid] = one, address
        asyncio.run(ask(ministack, "killed"))
        wait_for(setup, guid("killed"), lambda record: record.state == "running")
        # Whichever of them took it.
        killed, _ = bridges.pop(process_at_work(setup, guid("killed")))
        ((_, other),) = bridges.values()
        listener = Listener(f"http://{other}/api/v1/wsi/jobs/{guid('killed')}/events")
        listening = listener.start()
        killed_at = wait_for(setup, guid("killed"), half_done)
        killed.kill()
        job = wait_for(setup, guid("killed"), lambda record: record.state in {"succeeded", "failed"})
        computed = tiles_computed(server) - before
        listening.join(100)
        asyncio.run(ask(ministack, "undisturbed"))
        undisturbed = wait_for(setup, guid("undisturbed"), lambda record: record.state in {"succeeded", "failed"})
        time.sleep(1)
    objects, answers = asyncio.run(left_in_bucket(ministack))
    return TakenOver(
        killed_at=killed_at,
        job=job,
        undisturbed=undisturbed,
        computed=computed,
        told=listener.told,
        objects=objects,
        answers=answers,
    )


def test_another_bridge_ends_the_slide_and_the_server_computes_next_to_nothing_again(taken_over: TakenOver) -> None:
    assert ("succeeded", 2) == (taken_over.job.state, taken_over.job.fence), taken_over.job
    assert taken_over.job.result is not None
    assert TILES == taken_over.job.result["tiles_analyzed"]
    assert TILES <= taken_over.computed <= TILES + AGAIN
    assert taken_over.killed_at.units_done - AGAIN <= taken_over.job.result["tiles_resumed"] < TILES


def test_the_files_are_those_of_an_undisturbed_analysis(taken_over: TakenOver) -> None:
    written = [
        told(job.result["artifacts"], lambda uri: taken_over.objects[uri.removeprefix(f"s3://{BUCKET}/")])
        for job in (taken_over.job, taken_over.undisturbed)
        if job.result
    ]
    assert [FILES, FILES] == [set(files) for files in written]
    assert written[0] == written[1]
    reports = [
        json.loads(taken_over.objects[job.result["result_s3_key"]]) for job in (taken_over.job, taken_over.undisturbed) if job.result
    ]
    # It names its job.
    assert [guid("killed"), guid("undisturbed")] == [report.pop("request_id") for report in reports]
    assert reports[0] == reports[1]


def test_the_answer_names_the_files_of_the_fence_that_committed_and_nothing_else_is_left(taken_over: TakenOver) -> None:
    place = f"results/7/{guid('upload')}"
    answered = {answer["message"]["jobId"]: answer["message"]["resultS3Key"] for answer in taken_over.answers}
    expected = {name: f"{place}/{guid(name)}/{fence}/analysis.json" for name, fence in (("killed", 2), ("undisturbed", 1))}
    assert {guid(name): key for name, key in expected.items()} == answered
    folders = [place, *(key.rpartition("/")[0] for key in expected.values())]
    assert {f"{folder}/{name}" for folder in folders for name in FILES} == set(taken_over.objects)


def test_progress_was_told_by_the_other_bridge_all_along_and_never_went_back(taken_over: TakenOver) -> None:
    kinds = [kind for kind, _ in taken_over.told]
    assert ["progress"] * (len(kinds) - 1) + ["completed"] == kinds
    facts = [data for _, data in taken_over.told]
    for name in ("progress", "tilesDone"):
        values = [data[name] for data in facts]
        assert sorted(values) == values
    stages = [STAGES.index(data["stage"]) for data in facts if data["stage"]]
    assert sorted(stages) == stages
    counted = [data for data in facts if data["stage"] == "tiles"]
    assert len(counted) >= 4
    assert {TILES} == {data["tilesTotal"] for data in counted}
    assert any(data["tilesPerSecond"] > 0 and data["secondsLeft"] > 0 for data in counted)
    # One before the kill and one after, both seen on one stream of one bridge.
    assert counted[0]["tilesDone"] < taken_over.killed_at.units_done < counted[-1]["tilesDone"]


@pytest.mark.parametrize(
    ("shared", "end"),
    [(True, signal.SIGKILL), (False, signal.SIGKILL), (True, signal.SIGTERM)],
    ids=["killed, shared storage", "killed, streamed", "stopped"],
)
def test_a_slide_goes_on_when_its_server_is_back(tmp_path: Path, shared: bool, end: signal.Signals) -> None:
    slide = write_inputs(tmp_path)
    port = free_port()
    flags = ("--engine", "onnxruntime", "--threads", "1", "--read-roots", str(tmp_path), "--write-roots", str(tmp_path / "results"))
    flags += ("--listen", f"127.0.0.1:{port}", "--grace-seconds", "0", "--drain-seconds", "0")
    variables = {"BRIDGE_RESULTS_SHARED": str(shared).lower(), "BRIDGE_LEASE_SECONDS": "6"}
    setup = BridgeSetup(folder=tmp_path, inference=f"127.0.0.1:{port}", variables=variables)
    with ExitStack() as stack:
        server = stack.enter_context(running_server(tmp_path / "models", tmp_path, *flags))
        stack.enter_context(setup.running())
        setup.call("submit", "slide", str(slide), "--analysis", MODEL, "--key", "slide")
        killed_at = wait_for(setup, "slide", half_done)
        server.signal(end)
        assert {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 0}[end] == server.wait()
        server = stack.enter_context(running_server(tmp_path / "models", tmp_path, *flags))
        job = wait_for(setup, "slide", lambda record: record.state in {"succeeded", "failed"})
        # Of the new server, which may have begun before anybody looked.
        computed = tiles_computed(server)

    assert ("succeeded", 0) == (job.state, job.attempts), job
    assert job.result is not None
    assert killed_at.units_done - AGAIN <= job.result["tiles_resumed"]
    assert TILES - job.result["tiles_resumed"] == computed
    assert not list((tmp_path / "results").rglob("*.part"))
