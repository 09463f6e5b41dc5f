"""The slide worker behind the platform: requests as MassTransit publishes them, slides and results in S3, answers by SNS."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bridge.aws.access import Aws
from bridge.aws.names import Names
from bridge.aws.payloads import wire_attributes
from bridge.aws.topology import missing
from bridge.job import Event
from bridge.ledger.port import JobRecord
from bridge.settings import load
from bridge.transports.aws import topology
from inference_server.models.builders import BUILDERS
from scripts.demo_inputs import write_slide
from tests.support.bridge.bridge_process import BridgeSetup
from tests.support.bridge.wsi import BUCKET, SLIDE, TOPIC, URN, guid, kind_of, requested
from tests.support.inference_server.server_process import running_server
from tests.support.servers.ministack import Ministack, running_ministack
from tests.support.servers.sqs import aws_of, depth_of, lying_in

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {"wsi_bucket": BUCKET, "sqs_queues": ("WsiAnalysisWorker", "wsi-jobs-in")}


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What there was to see in the end."""

    jobs: Mapping[str, JobRecord]
    # Envelopes in the saga's queue, with the attributes that they came with.
    saga: list[tuple[Mapping[str, str], dict[str, Any]]]
    errors: list[tuple[Mapping[str, str], bytes]]
    skipped: list[tuple[Mapping[str, str], bytes]]
    plain: list[dict[str, Any]]
    left: int
    # Of the bucket.
    objects: Mapping[str, bytes]
    topology: str
    # What the command would still make.
    missing: list[str]
    bridge_status: int
    broken: bytes

    def answers(self, name: str) -> list[dict[str, Any]]:
        return [envelope for _, envelope in self.saga if envelope["message"]["jobId"] == guid(name)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("wsi-worker")
    with running_ministack(folder) as ministack, pytest.MonkeyPatch.context() as patch:
        for name, value in ministack.environment().items():
            patch.setenv(name, value)
        yield _run(folder, ministack)


def _run(folder: Path, ministack: Ministack) -> Finished:
    variables = {
        "AWS__ServiceUrl": ministack.endpoint,
        "AWS__Region": "us-east-1",
        "AWS__S3__BucketName": BUCKET,
        "BRIDGE_SQS_QUEUES": ",".join(SETTINGS["sqs_queues"]),
        # It outlasts a pause of the machine: results lie under the number of the try.
        "BRIDGE_LEASE_SECONDS": "12",
    }
    slide = write_slide(folder / "slide.tiff", size=768)
    roots = ("--read-roots", f"s3://{BUCKET}/wsi/", "--write-roots", f"s3://{BUCKET}/results/", "--allow-http")
    BUILDERS["he_baseline"](folder / "models")
    with running_server(folder / "models", folder, "--engine", "onnxruntime", *roots) as server:
        setup = BridgeSetup(folder=folder, inference=server.grpc, variables=variables)
        made = setup.call("topology", "apply")
        broken = json.dumps({**requested("broken"), "message": {"jobId": "broken", "tenantId": 7}}).encode()
        asyncio.run(_publish(ministack, slide, broken))
        with setup.running() as bridge:
            jobs = setup.wait_for_jobs("succeeded", "failed", count=5, seconds=90)
            asyncio.run(_until_empty(ministack))
            bridge.send_signal(signal.SIGTERM)
            status = bridge.wait(30)
    found = asyncio.run(_found(ministack))
    return Finished(jobs=jobs, topology=made, bridge_status=status, broken=broken, **found)


async def _publish(ministack: Ministack, slide: Path, broken: bytes) -> None:
    async with aws_of(ministack) as aws:
        await aws.call("s3", "create_bucket", Bucket=BUCKET)
        await aws.call("s3", "put_object", Bucket=BUCKET, Key=SLIDE, Body=slide.read_bytes())
        await aws.call("sqs", "create_queue", QueueName="WsiAnalysisSagaState")
        names = Names(aws)
        for kind in ("Completed", "Failed"):
            await aws.call(
                "sns",
                "subscribe",
                TopicArn=await names.topic_arn(TOPIC.format(kind)),
                Protocol="sqs",
                Endpoint=await names.arn("sqs", "WsiAnalysisSagaState"),
                Attributes={"RawMessageDelivery": "true"},
            )
        twice = json.dumps(requested("twice")).encode()
        # As the documents have it, where MassTransit does otherwise.
        payload = requested("payload")
        payload["Payload"] = {name.capitalize(): value for name, value in payload.pop("message").items()}
        messages = [
            twice,
            json.dumps(payload).encode(),
            json.dumps(requested("missing", "wsi/user-1/none/gone.svs")).encode(),
            json.dumps(
                requested("unsaid", message={"jobId": guid("unsaid"), "uploadId": guid("upload"), "tenantId": 7, "s3Key": None})
            ).encode(),
            broken,
            twice,
            json.dumps(requested("other", messageType=["urn:message:HiveOrders.Api.Shared.Events:OrderPlaced"])).encode(),
        ]
        for message in messages:
            await _to_topic(aws, names, message)
        plain = json.dumps(requested("plain")["message"])
        await aws.call("sqs", "send_message", QueueUrl=await names.queue_url("wsi-jobs-in"), MessageBody=plain)


async def _to_topic(aws: Aws, names: Names, body: bytes) -> None:
    attributes = wire_attributes({"Content-Type": "application/vnd.masstransit+json"})
    topic = await names.topic_arn(TOPIC.format("Requested"))
    await aws.call("sns", "publish", TopicArn=topic, Message=body.decode(), MessageAttributes=attributes)


async def _until_empty(ministack: Ministack) -> None:
    """Until the second delivery of a job, which is put off while the first is worked on, has come and gone."""
    async with aws_of(ministack) as aws:
        until = time.monotonic() + 60
        while await depth_of(aws, "WsiAnalysisWorker") and time.monotonic() < until:
            await asyncio.sleep(0.2)


async def _found(ministack: Ministack) -> dict[str, Any]:
    async with aws_of(ministack) as aws:
        saga = [(attributes, json.loads(body)) for attributes, body in await lying_in(aws, "WsiAnalysisSagaState", wait_seconds=1)]
        listed = (await aws.call("s3", "list_objects_v2", Bucket=BUCKET, Prefix="results/")).get("Contents", ())
        objects = {one["Key"]: await aws.fetch(BUCKET, one["Key"], most_bytes=1 << 30) for one in listed}
        return {
            "saga": saga,
            "errors": await lying_in(aws, "WsiAnalysisWorker_error"),
            "skipped": await lying_in(aws, "WsiAnalysisWorker_skipped"),
            "plain": [json.loads(body) for _, body in await lying_in(aws, "wsi-jobs-out")],
            "left": len(await lying_in(aws, "WsiAnalysisWorker")) + len(await lying_in(aws, "wsi-jobs-in")),
            "objects": objects,
            "missing": [change.text async for change in missing(aws, topology(load(**SETTINGS)))],
        }


def test_every_request_with_a_job_is_answered_once_by_message_id(done: Finished) -> None:
    expected = {(guid(name), "Completed") for name in ("twice", "payload")} | {(guid(name), "Failed") for name in ("missing", "unsaid")}
    told = [
        (envelope["message"]["jobId"], envelope["messageType"][0].removesuffix("Event").rpartition("WsiAnalysis")[2])
        for _, envelope in done.saga
    ]
    assert sorted(expected) == sorted(told)
    for _, envelope in done.saga:
        job = envelope["message"]["jobId"]
        assert Event(type=kind_of(envelope).lower(), destination="", body=b"").message_id(job) == envelope["messageId"]


def test_answers_are_in_the_strict_form(done: Finished) -> None:
    for attributes, envelope in done.saga:
        assert "application/vnd.masstransit+json" == attributes["Content-Type"]
        assert envelope["messageId"] == attributes["MessageId"]
    (envelope,) = done.answers("twice")
    assert [URN.format("Completed")] == envelope["messageType"]
    assert guid("conversation of twice") == envelope["conversationId"]
    assert {"jobId", "resultS3Key"} == set(envelope["message"])


def test_the_result_lies_where_the_answer_says_and_is_of_the_schema(done: Finished) -> None:
    schema = json.loads((ROOT / "docs" / "analysis.schema.json").read_text())
    for name in ("twice", "payload"):
        (envelope,) = done.answers(name)
        key = envelope["message"]["resultS3Key"]
        assert f"results/7/{guid('upload')}/{guid(name)}/1/analysis.json" == key
        report = json.loads(done.objects[key])
        jsonschema.validate(report, schema)
        assert guid(name) == report["request_id"]
        beside = {other.rsplit("/", 1)[1] for other in done.objects if other.startswith(key.rsplit("/", 1)[0] + "/")}
        assert {"heatmap.png", "overlay.png"} <= beside


def test_the_newest_report_lies_at_the_place_that_the_platform_knows(done: Finished) -> None:
    jsonschema.validate(
        json.loads(done.objects[f"results/7/{guid('upload')}/analysis.json"]), json.loads((ROOT / "docs/analysis.schema.json").read_text())
    )


def test_a_missing_slide_fails_with_the_contracts_text(done: Finished) -> None:
    (envelope,) = done.answers("missing")
    assert [URN.format("Failed")] == envelope["messageType"]
    assert envelope["message"]["errorMessage"].startswith("S3 object not found. ")
    assert "failed" == done.jobs[guid("missing")].state


def test_a_broken_request_lies_in_the_error_queue_with_its_reason_and_its_bytes(done: Finished) -> None:
    ((attributes, body),) = done.errors
    assert (done.broken, "fault") == (body, attributes["MT-Reason"])
    assert "jobid" in attributes["MT-Fault-Message"]


def test_a_request_that_does_not_tell_its_slide_fails_so_that_nobody_waits_for_it(done: Finished) -> None:
    (envelope,) = done.answers("unsaid")
    assert [URN.format("Failed")] == envelope["messageType"]
    assert "s3key" in envelope["message"]["errorMessage"]
    assert "failed" == done.jobs[guid("unsaid")].state


def test_a_message_for_somebody_else_is_skipped(done: Finished) -> None:
    ((attributes, body),) = done.skipped
    assert "skipped" == attributes["MT-Reason"]
    assert ["urn:message:HiveOrders.Api.Shared.Events:OrderPlaced"] == json.loads(body)["messageType"]


def test_a_plain_request_is_answered_in_its_own_queue(done: Finished) -> None:
    (answer,) = done.plain
    assert (guid("plain"), "Completed") == (answer["jobId"], answer["status"])
    assert answer["resultS3Key"] in done.objects
    assert not done.answers("plain")


def test_nothing_is_left_and_the_bridge_ends_well(done: Finished) -> None:
    assert (0, 0) == (done.left, done.bridge_status)
    assert {guid(name) for name in ("twice", "payload", "missing", "unsaid", "plain")} == set(done.jobs)


def test_the_topology_is_made_once(done: Finished) -> None:
    assert "subscribe queue WsiAnalysisWorker to topic HiveOrders_Api_Shared_Events-WsiAnalysisRequestedEvent (raw)" in done.topology
    assert [] == done.missing


@pytest.mark.parametrize("queue", ["WsiAnalysisWorker", "wsi-jobs-in"])
def test_without_the_bucket_the_bridge_ends_and_leaves_the_platforms_queue_alone(queue: str, tmp_path: Path) -> None:
    """It would know no request, and put all of them into the error queue."""
    variables = {"AWS__ServiceUrl": "http://127.0.0.1:9", "AWS__Region": "us-east-1", "BRIDGE_SQS_QUEUES": queue}
    process = BridgeSetup(folder=tmp_path, inference="", variables=variables).start("run")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "AWS__S3__BucketName" in errors, queue in errors) == (2, True, True)
