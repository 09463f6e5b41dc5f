"""The bridge is killed while its jobs come from SQS; what becomes of a message is told by SQS itself."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from bridge.job import Event
from bridge.ledger.port import JobRecord
from bridge.sinks.sqs import SqsQueues
from bridge.steps import Step
from tests.support.ministack_server import Ministack
from tests.support.sqs import aws_of, depth_of, fresh_queue, lying_in
from tests.support.trial_bridge import Trial, message, open_trial_store, start, trial_settings

pytestmark = pytest.mark.timeout(240)
# At once: enough to keep the processors busy while leases run out.
_AT_ONCE = 6
_SECONDS = 90


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """What is left once a bridge was killed at a step and another one has worked until idle."""

    killed: int
    ended: int
    jobs: Mapping[str, JobRecord]
    sent: list[tuple[str, str]]
    # In SQS.
    left: int
    errors: list[bytes]


async def _run(trial: Trial) -> int:
    process = start(trial)
    try:
        await asyncio.to_thread(process.join, _SECONDS)
        assert process.exitcode is not None, trial.log.read_text()[-2000:]
        return process.exitcode
    finally:
        process.kill()


async def _scenario(ministack: Ministack, folder: Path, step: Step) -> Aftermath:
    async with aws_of(ministack) as aws:
        queue = await fresh_queue(aws)
        for suffix in ("_error", "_skipped"):
            await fresh_queue(aws, name=f"{queue}{suffix}")
        sender = SqsQueues(aws)
        long, flaky = message("long", parts=8, part_seconds=0.06), message("flaky", transient_failures=1)
        bodies = [message("plain"), long, flaky, message("plain"), b"\xff"]
        for body in bodies:
            await sender.send(queue, body, message_id=str(uuid4()))
        settings = trial_settings(folder, sqs_queues=(queue,), aws_endpoint=ministack.endpoint)
        stumbles = {"flaky"}
        killed = await _run(Trial(settings=settings, log=folder / "first.log", until_idle=True, kill_at=step, stumbles=stumbles))
        ended = await _run(Trial(settings=settings, log=folder / "second.log", until_idle=True, stumbles=stumbles))
        async with open_trial_store(folder) as store:
            return Aftermath(
                killed=killed,
                ended=ended,
                jobs={record.key: record for record in await store.jobs.list()},
                sent=[(json.loads(each.body)["job"], each.message_id) for each in await store.results.peek()],
                left=await depth_of(aws, queue),
                errors=[body for _, body in await lying_in(aws, f"{queue}_error")],
            )


async def test_a_bridge_on_sqs_that_is_killed_loses_nothing_and_does_nothing_twice(ministack: Ministack, tmp_path: Path) -> None:
    """One test for all steps: some are played at once, as most of the time is waiting."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def played(step: Step) -> Aftermath:
        folder = tmp_path / step.value
        folder.mkdir()
        async with places:
            return await _scenario(ministack, folder, step)

    aftermaths = await asyncio.gather(*map(played, Step))

    expected = {"plain": ("succeeded", 0), "long": ("succeeded", 0), "flaky": ("succeeded", 1)}
    ids = sorted((key, Event(type="completed", destination="", body=b"").message_id(key)) for key in expected)
    for step, after in zip(Step, aftermaths, strict=True):
        assert (-signal.SIGKILL, 0) == (after.killed, after.ended), step
        assert expected == {key: (record.state.value, record.attempts) for key, record in after.jobs.items()}, step
        assert ids == sorted(after.sent), step
        assert (0, {b"\xff"}) == (after.left, set(after.errors)), step
