"""deploy/requeue_stuck_jobs.sh on a real Redis and on an emulator of SQS."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.support.servers.ministack import Ministack
from tests.support.servers.redis import RedisServer, redis_server

SCRIPT = Path(__file__).parents[2] / "deploy" / "requeue_stuck_jobs.sh"
STUCK, FRESH = "7c1f3c9e-0f1d-4c2b-9b1a-0d6e5f4a3b2c", "0b9f7d1e-56cc-4d0a-8d0f-5a4d8a1e2f33"


@pytest.fixture
def cards() -> Iterator[RedisServer]:
    """The platform's Redis, with a document that was begun ten minutes ago and one that was begun just now, by other workers."""
    with redis_server() as server:
        for document, seconds in ((STUCK, 600), (FRESH, 1)):
            server.command("SADD", "filot:ocr:gpu:processing", document)
            server.command("HSET", "filot:ocr:gpu:processing:timestamps", document, str(int(1000 * (time.time() - seconds))))
        yield server


def script(folder: Path, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(Path(sys.executable).parent), "/usr/bin", "/bin"))
    variables = {"PATH": path, "BRIDGE_DATABASE": str(folder / "bridge.db"), **(environment or {})}
    return subprocess.run(["bash", str(SCRIPT), *words], env=variables, cwd=folder, capture_output=True, text=True, timeout=60)


def queued(server: RedisServer) -> bytes:
    return server.command("LRANGE", "filot:ocr:gpu:queue", "0", "-1")


def test_a_dry_run_shows_what_is_stuck_and_leaves_it(cards: RedisServer, tmp_path: Path) -> None:
    done = script(tmp_path, "--redis-url", cards.url, "--dry-run")
    assert (done.returncode, done.stdout.strip()) == (0, f"{STUCK} is stuck"), done.stderr
    assert STUCK.encode() not in queued(cards)


def test_what_is_stuck_is_queued_again_and_what_was_just_begun_is_not(cards: RedisServer, tmp_path: Path) -> None:
    done = script(tmp_path, "--redis-url", cards.url)
    assert (done.returncode, done.stdout.strip()) == (0, f"{STUCK} is queued again"), done.stderr
    assert STUCK.encode() in queued(cards)
    assert FRESH.encode() not in queued(cards)


def test_the_age_and_the_keys_can_be_told(cards: RedisServer, tmp_path: Path) -> None:
    assert "no document is stuck" in script(tmp_path, "--redis-url", cards.url, "--older-than", "900").stdout
    other = script(tmp_path, "--redis-url", cards.url, "--queue-key", "other:queue", "--processing-key", "filot:ocr:gpu:processing")
    assert f"{STUCK} is queued again" in other.stdout
    assert STUCK.encode() in cards.command("LRANGE", "other:queue", "0", "-1")


def test_dead_messages_of_a_queue_are_shown_and_then_sent_to_where_they_came_from(ministack: Ministack, tmp_path: Path) -> None:
    sqs = sqs_of(ministack)
    jobs = sqs.create_queue(QueueName="tired-ml-worker")["QueueUrl"]
    dead = sqs.create_queue(QueueName="tired-ml-worker-dlq")["QueueUrl"]
    sqs.send_message(QueueUrl=dead, MessageBody='{"job_type": "process_pending_labs", "user_id": 1}')
    shown = script(tmp_path, "--sqs-queue", "tired-ml-worker-dlq", "--dry-run", environment=ministack.environment())
    assert (shown.returncode, "would be sent again to tired-ml-worker" in shown.stdout) == (0, True), shown.stderr
    assert received(sqs, jobs) == []
    sent = script(tmp_path, "--sqs-queue", "tired-ml-worker-dlq", environment=ministack.environment())
    assert (sent.returncode, "sent again to tired-ml-worker" in sent.stdout) == (0, True), sent.stderr
    assert received(sqs, jobs) == ['{"job_type": "process_pending_labs", "user_id": 1}']


def sqs_of(ministack: Ministack) -> Any:
    return boto3.client(
        "sqs", endpoint_url=ministack.endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )


def received(sqs: Any, url: str) -> list[str]:
    return [one["Body"] for one in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", ())]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--older-than", "soon"), "--older-than: 'soon' is no number of seconds"),
        (("--reason", "timeout"), "--reason goes with --sqs-queue"),
        (("--redis-url",), "--redis-url needs a value"),
        (("--force",), "unknown option '--force'"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = script(tmp_path, *words)
    assert (done.returncode, told in done.stderr) == (1, True), done.stderr
