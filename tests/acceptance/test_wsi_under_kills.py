"""Requests for slides, through bridges that are killed and restarted at random from the first request to the last.

Fifty as a rule; two hundred with `--whole-matrix`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bridge.aws.access import Aws
from bridge.aws.names import Names
from bridge.aws.payloads import wire_attributes
from bridge.ledger.port import JobRecord
from bridge.settings import load
from bridge.store import open_store
from inference_server.models.builders import BUILDERS
from scripts.demo_inputs import write_slide
from tests.support.bridge.bridge_process import BridgeSetup
from tests.support.bridge.killer import Killer
from tests.support.bridge.wsi import BUCKET, SLIDE, TOPIC, guid, kind_of, requested
from tests.support.inference_server.server_process import running_server
from tests.support.patience import Headway
from tests.support.servers.ministack import Ministack, running_ministack
from tests.support.servers.postgres import PostgresServer, postgres_server
from tests.support.servers.sqs import aws_of, depth_of, lying_in

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).parents[2]
LEASE_SECONDS = 5
# Seconds between one kill and the next, at least.
PAUSE = (0.5, 1.5)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Names of the jobs that are asked for."""

    sound: Sequence[str]
    # Those of the sound that are asked for again.
    twice: Sequence[str]
    missing: Sequence[str]
    broken: Sequence[str]
    # After so many messages comes a kill.
    between_kills: int

    @classmethod
    def of(cls, *, sound: int, wrong: int, between_kills: int) -> Asked:
        """`wrong`: so many of the missing, and of the broken."""
        names = [f"sound {number}" for number in range(sound)]
        missing, broken = ([f"{kind} {number}" for number in range(wrong)] for kind in ("missing", "broken"))
        return cls(sound=names, twice=names[::8], missing=missing, broken=broken, between_kills=between_kills)

    def messages(self, chance: random.Random) -> list[bytes]:
        sound = [json.dumps(requested(name)).encode() for name in (*self.sound, *self.twice)]
        missing = [json.dumps(requested(name, f"wsi/user-1/none/{name}.svs")).encode() for name in self.missing]
        messages = sound + missing + [_broken(name) for name in self.broken]
        chance.shuffle(messages)
        return messages


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What there was to see in the end."""

    asked: Asked
    jobs: Mapping[str, JobRecord]
    # Messages of the outbox that were not sent.
    unsent: int
    # Messages of the platform's saga, by the id of the message: an inbox takes each id once.
    saga: Mapping[str, Sequence[dict[str, Any]]]
    errors: list[tuple[Mapping[str, str], bytes]]
    left: int
    objects: Mapping[str, bytes]
    kills: Counter[str]
    # The jobs that bridges held when they were killed.
    orphaned: Set[str]

    def answers(self, name: str) -> list[tuple[str, str]]:
        """Message ids and kinds of what a job was answered with."""
        return sorted((key, kind_of(sent[0])) for key, sent in self.saga.items() if sent[0]["message"]["jobId"] == guid(name))


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    whole = request.config.getoption("whole_matrix")
    asked = Asked.of(sound=150, wrong=15, between_kills=10) if whole else Asked.of(sound=36, wrong=5, between_kills=6)
    folder = tmp_path_factory.mktemp("under-kills")
    seed = int(os.environ.get("LAMINA_KILL_SEED", "20261125"))
    print(f"LAMINA_KILL_SEED={seed}")
    with postgres_server() as postgres, running_ministack(folder) as ministack, pytest.MonkeyPatch.context() as patch:
        for name, value in ministack.environment().items():
            patch.setenv(name, value)
        yield _run(folder, postgres, ministack, asked, random.Random(seed))


def _run(folder: Path, postgres: PostgresServer, ministack: Ministack, asked: Asked, chance: random.Random) -> Ended:
    database = postgres.new_database()
    variables = {
        "AWS__ServiceUrl": ministack.endpoint,
        "AWS__Region": "us-east-1",
        "AWS__S3__BucketName": BUCKET,
        "BRIDGE_SQS_QUEUES": "WsiAnalysisWorker",
        "BRIDGE_DATABASE": database,
        "BRIDGE_LEASE_SECONDS": str(LEASE_SECONDS),
        "BRIDGE_MAX_INTERRUPTIONS": "1000",
        "BRIDGE_MAX_SERVER_LOSSES": "1000",
        "BRIDGE_DRAIN_SECONDS": "2",
    }
    BUILDERS["he_baseline"](folder / "models")
    slide = write_slide(folder / "slide.tiff", size=256)
    roots = ("--read-roots", f"s3://{BUCKET}/wsi/", "--write-roots", f"s3://{BUCKET}/results/", "--allow-http")
    with running_server(folder / "models", folder, "--engine", "onnxruntime", *roots) as server:
        setups = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            setups.append(BridgeSetup(folder=folder / name, inference=server.grpc, variables=variables))
        setups[0].call("topology", "apply")
        asyncio.run(_prepare(ministack, slide))
        killer = Killer(setups, chance, database=database, pause=PAUSE, progress=lambda: asyncio.run(_left_to_do(asked, database)))
        messages = asked.messages(chance)
        headway = Headway()
        try:
            for begin in range(0, len(messages), asked.between_kills):
                killer.let_work()
                asyncio.run(_publish(ministack, messages[begin : begin + asked.between_kills]))
                killer.strike()
            while (left := asyncio.run(_left_to_do(asked, database))) != (0, 0):
                headway.check(left)
                killer.let_work_and_strike()
            while lying := asyncio.run(_depth(ministack)):
                headway.check(f"{lying} messages in the queue")
                time.sleep(0.2)
        finally:
            killer.close()
    jobs, unsent = asyncio.run(_ledger(database))
    return Ended(asked=asked, jobs=jobs, unsent=unsent, kills=killer.kills, orphaned=killer.orphaned, **asyncio.run(_found(ministack)))


def _broken(name: str) -> bytes:
    return json.dumps({**requested(name), "message": {"jobId": name, "tenantId": 7}}).encode()


async def _prepare(ministack: Ministack, slide: Path) -> None:
    async with aws_of(ministack) as aws:
        await aws.call("s3", "create_bucket", Bucket=BUCKET)
        await aws.call("s3", "put_object", Bucket=BUCKET, Key=SLIDE, Body=slide.read_bytes())
        await aws.call("sqs", "create_queue", QueueName="WsiAnalysisSagaState")
        names = Names(aws)
        queue = await names.arn("sqs", "WsiAnalysisSagaState")
        for kind in ("Completed", "Failed"):
            topic = await names.topic_arn(TOPIC.format(kind))
            raw = {"RawMessageDelivery": "true"}
            await aws.call("sns", "subscribe", TopicArn=topic, Protocol="sqs", Endpoint=queue, Attributes=raw)


async def _publish(ministack: Ministack, messages: Sequence[bytes]) -> None:
    attributes = wire_attributes({"Content-Type": "application/vnd.masstransit+json"})
    async with aws_of(ministack) as aws:
        topic = await Names(aws).topic_arn(TOPIC.format("Requested"))
        for message in messages:
            await aws.call("sns", "publish", TopicArn=topic, Message=message.decode(), MessageAttributes=attributes)


async def _ledger(database: str) -> tuple[Mapping[str, JobRecord], int]:
    async with open_store(load(database=database)) as store:
        return {job.key: job for job in await store.jobs.list(limit=1000)}, (await store.outbox.backlog()).depth


async def _left_to_do(asked: Asked, database: str) -> tuple[int, int]:
    """Jobs that have not ended, messages that were not sent. Neither changes but by the bridges' work."""
    jobs, unsent = await _ledger(database)
    over = sum(job.state in {"succeeded", "failed"} for job in jobs.values())
    return len(asked.sound) + len(asked.missing) - over, unsent


async def _depth(ministack: Ministack) -> int:
    async with aws_of(ministack) as aws:
        return await depth_of(aws, "WsiAnalysisWorker")


async def _found(ministack: Ministack) -> dict[str, Any]:
    async with aws_of(ministack) as aws:
        saga: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for _, body in await lying_in(aws, "WsiAnalysisSagaState", wait_seconds=1):
            envelope = json.loads(body)
            saga[envelope["messageId"]].append(envelope)
        return {
            "saga": saga,
            "errors": await lying_in(aws, "WsiAnalysisWorker_error"),
            "left": await depth_of(aws, "WsiAnalysisWorker"),
            "objects": await _objects(aws),
        }


async def _objects(aws: Aws) -> Mapping[str, bytes]:
    """The reports, by their keys."""
    objects: dict[str, bytes] = {}
    more: dict[str, str] = {}
    while True:
        page = await aws.call("s3", "list_objects_v2", Bucket=BUCKET, Prefix="results/", **more)
        keys = [one["Key"] for one in page.get("Contents", ()) if one["Key"].endswith("/analysis.json")]
        objects |= {key: await aws.fetch(BUCKET, key, most_bytes=1 << 30) for key in keys}
        if not page.get("IsTruncated"):
            return objects
        more = {"ContinuationToken": page["NextContinuationToken"]}


def test_bridges_were_killed_over_jobs_that_others_took_over(ended: Ended) -> None:
    assert {"SIGKILL", "SIGTERM"} == set(ended.kills)
    assert {key for key in ended.orphaned if ended.jobs[key].fence > 1}


def test_each_sound_request_is_answered_completed_once_by_message_id(ended: Ended) -> None:
    wrong = {name: ended.answers(name) for name in ended.asked.sound if [kind for _, kind in ended.answers(name)] != ["Completed"]}
    assert {} == wrong


def test_each_missing_slide_is_answered_failed_once_by_message_id(ended: Ended) -> None:
    wrong = {name: ended.answers(name) for name in ended.asked.missing if [kind for _, kind in ended.answers(name)] != ["Failed"]}
    assert {} == wrong


def test_what_is_sent_again_is_the_same_message(ended: Ended) -> None:
    for sent in ended.saga.values():
        assert all(envelope["message"] == sent[0]["message"] for envelope in sent)


def test_nobody_is_answered_who_did_not_ask(ended: Ended) -> None:
    asked = {guid(name) for name in (*ended.asked.sound, *ended.asked.missing)}
    assert asked == {sent[0]["message"]["jobId"] for sent in ended.saga.values()}


def test_every_result_lies_where_its_answer_says_and_is_of_the_schema(ended: Ended) -> None:
    schema = jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "analysis.schema.json").read_text()))
    keys = [sent[0]["message"]["resultS3Key"] for sent in ended.saga.values() if kind_of(sent[0]) == "Completed"]
    assert len(ended.asked.sound) == len(set(keys))
    for key in keys:
        schema.validate(json.loads(ended.objects[key]))


def test_the_poison_lies_in_the_error_queue_with_its_reason(ended: Ended) -> None:
    assert {_broken(name) for name in ended.asked.broken} == {body for _, body in ended.errors}
    assert all("jobid" in attributes["MT-Fault-Message"] for attributes, _ in ended.errors)


def test_no_row_and_no_message_is_left(ended: Ended) -> None:
    states = Counter(job.state for job in ended.jobs.values())
    assert {"succeeded": len(ended.asked.sound), "failed": len(ended.asked.missing)} == dict(states)
    assert (0, 0) == (ended.unsent, ended.left)


def test_interruptions_burn_no_attempt(ended: Ended) -> None:
    assert {0} == {job.attempts for job in ended.jobs.values() if job.state == "succeeded"}
