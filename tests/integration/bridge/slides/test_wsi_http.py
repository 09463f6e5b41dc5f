"""What the platform asks over HTTP of a running bridge. The analysis itself is played; the acceptance test has the real one."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.app import Bridge
from bridge.errors import PermanentError
from bridge.job import Delivery, Job, Outcome
from bridge.served import Systems
from bridge.settings import load
from bridge.store import open_store
from bridge.systems.port import Context
from bridge.systems.wsi import platform_messages
from tests.support.bridge.answering_bridge import until_it_answers
from tests.support.bridge.trial_bridge import trial_settings
from tests.support.ports import free_address

JOB = "7f1de0a4-58a5-4f53-9d7b-0d5dd47c5b0e"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UPLOAD = "b5a4c7f6-6b0a-4b57-8d3a-0f3c7f3f8f11"


class PlayedAnalysis:
    """Says where the result would lie."""

    system = platform_messages.SYSTEM

    def parse(self, delivery: Delivery) -> Job:
        return platform_messages.job_of(delivery)

    async def handle(self, job: Job, context: Context) -> Outcome:
        if "gone" in job.request["s3key"]:
            raise PermanentError("S3 object not found. The key is gone")
        place = "traced" if job.trace.get("traceparent") == TRACE else job.key
        return Outcome(succeeded=True, result={"result_s3_key": f"results/{place}/{context.claim.fence}"})

    def failure(self, job: Job, reason: str) -> Outcome:
        return Outcome(succeeded=False, result={"error": "failed", "reason": reason})


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    address = free_address()
    settings = load(**trial_settings(tmp_path, http=address, wsi_bucket="bucket", lease_seconds=60.0))
    stop = asyncio.Event()
    async with open_store(settings) as store:
        running = asyncio.create_task(Bridge(settings, store, Systems(handlers=[PlayedAnalysis()])).run(stop, asyncio.Event()))
        await until_it_answers(address)
        yield address
        stop.set()
        await asyncio.wait_for(running, 60)


async def _ask(address: str, path: str, content: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    body = None if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()

    def ask() -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(urllib.request.Request(f"http://{address}{path}", data=body, headers=headers), timeout=60) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return await asyncio.to_thread(ask)


def _posted(**changes: Any) -> dict[str, Any]:
    return {"jobId": JOB, "uploadId": UPLOAD, "tenantId": 7, "s3Key": "wsi/a.svs", **changes}


async def test_a_call_is_answered_with_the_results_key_and_again_with_the_same(address: str) -> None:
    expected = (200, {"resultS3Key": f"results/{JOB}/1"})

    assert expected == await _ask(address, "/analyze", _posted())
    assert expected == await _ask(address, "/analyze", _posted())


async def test_the_trace_of_a_call_goes_with_its_job(address: str) -> None:
    assert (200, {"resultS3Key": "results/traced/1"}) == await _ask(address, "/analyze", _posted(), traceparent=TRACE)


async def test_a_slide_that_cannot_be_analysed_is_a_failure_with_its_reason(address: str) -> None:
    status, told = await _ask(address, "/analyze", _posted(s3Key="gone"))

    assert (500, "S3 object not found. The key is gone") == (status, told["reason"])


@pytest.mark.parametrize(("content", "reason"), [(b"{", "not JSON"), ([1], "no JSON object"), ({"jobId": JOB}, "uploadid")])
async def test_a_call_that_is_not_right_is_told_why(address: str, content: Any, reason: str) -> None:
    status, told = await _ask(address, "/analyze", content)

    assert 400 == status
    assert reason in told["reason"]


async def test_a_job_is_shown_in_the_platforms_shape(address: str) -> None:
    await _ask(address, "/analyze", _posted())
    status, told = await _ask(address, f"/api/v1/wsi/jobs/{JOB.upper()}")

    assert 200 == status
    assert (JOB, UPLOAD, "Completed", f"results/{JOB}/1", None) == (
        told["id"],
        told["wsiUploadId"],
        told["status"],
        told["resultS3Key"],
        told["errorMessage"],
    )
    assert told["createdAt"].endswith("Z")
    assert told["completedAt"].endswith("Z")
    assert 404 == (await _ask(address, f"/api/v1/wsi/jobs/{UPLOAD}"))[0]
