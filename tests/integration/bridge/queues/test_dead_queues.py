"""Dead messages in queues of SQS: looked at, picked out and sent again by `bridge dead`, and never lost or doubled."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.app import Bridge, local_transport
from bridge.aws.access import Aws, AwsAccess
from bridge.aws.names import Names
from bridge.aws.payloads import Payloads, wire_attributes
from bridge.dead.port import DeadMessage
from bridge.dead.sqs import SqsDeadQueue
from bridge.envelopes import masstransit
from bridge.errors import PermanentError
from bridge.job import Job, Outcome
from bridge.ledger.port import Claim, State
from bridge.served import Systems
from bridge.settings import load
from bridge.store import open_store
from bridge.transports.opening import open_transport
from tests.support.bridge.trial_bridge import TrialHandler, message, trial_settings
from tests.support.forked import Finished, bridge
from tests.support.servers.local_http import Asked, local_http, passed_on
from tests.support.servers.ministack import Ministack
from tests.support.servers.sqs import aws_of, depth_of, fresh_queue, lying_in


@pytest.fixture
async def aws(ministack: Ministack) -> AsyncIterator[Aws]:
    async with aws_of(ministack) as aws:
        yield aws


async def _put(aws: Aws, queue: str, body: bytes, *, group: str = "", **attributes: str) -> None:
    fifo = {"MessageGroupId": group, "MessageDeduplicationId": str(time.time_ns())} if group else {}
    url = await Names(aws).queue_url(queue)
    await aws.call("sqs", "send_message", QueueUrl=url, MessageBody=body.decode(), MessageAttributes=wire_attributes(attributes), **fifo)


async def _pair(aws: Aws, *, fifo: bool = False) -> tuple[str, str]:
    """A queue, and its `_error` queue."""
    queue = await fresh_queue(aws, fifo=fifo)
    plain = queue.removesuffix(".fifo")
    return queue, await fresh_queue(aws, fifo=fifo, name=f"{plain}_error{'.fifo' if fifo else ''}")


def _dead(aws: Aws, queue: str) -> SqsDeadQueue:
    async def reopen(_key: str) -> bool:
        return False

    return SqsDeadQueue(aws, queue, payloads=Payloads(aws), reopen=reopen)


async def _browsed(place: SqsDeadQueue) -> list[DeadMessage]:
    return [message async for message in place.browse()]


async def _command(ministack: Ministack, folder: Path, *arguments: str) -> Finished:
    environment = {**ministack.environment(), "BRIDGE_DATABASE": str(folder / "bridge.db")}
    return await asyncio.to_thread(bridge, *arguments, folder=folder, environment=environment)


async def test_messages_are_listed_shown_and_left_where_they_are(aws: Aws, ministack: Ministack, tmp_path: Path) -> None:
    queue, errors = await _pair(aws)
    for number in range(13):
        await _put(aws, errors, message(f"job-{number}", password="secret"), **masstransit.error_attributes("cannot be read", queue=queue))

    listed = json.loads((await _command(ministack, tmp_path, "dead", "list", "--queue", errors, "--json")).out)
    table = (await _command(ministack, tmp_path, "dead", "list", "--queue", errors, "--limit", "2")).out
    part = await _command(ministack, tmp_path, "dead", "replay", listed[0]["id"][:13], "--queue", errors)
    shown = json.loads((await _command(ministack, tmp_path, "dead", "show", listed[0]["id"][:13], "--queue", errors, "--json")).out)

    assert {f"job-{number}" for number in range(13)} == {each["job_key"] for each in listed}
    first = listed[0]
    assert ("sqs", errors, queue, "trial") == (first["source"], first["queue"], first["destination"], first["system"])
    assert "Lamina.PoisonError: cannot be read" == first["reason"]
    assert abs(time.time() - first["dead_at"]) < 120
    assert 3 == len(table.splitlines())
    assert (2, True) == (part.status, "there is no dead letter" in part.err), "what is sent again is named whole"
    assert (listed[0]["job_key"], "fault") == (shown["job_key"], shown["attributes"]["MT-Reason"])
    assert "secret" not in json.dumps([listed, shown])
    assert 13 == len(await lying_in(aws, errors)), "they are there, and can be had at once"


async def test_only_what_fits_is_sent_again_as_it_was_at_first(aws: Aws, ministack: Ministack, tmp_path: Path) -> None:
    queue, errors = await _pair(aws)
    kept = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "Content-Type": "application/json"}
    for key, reason in (("order-1", "database down"), ("order-2", "no such slide"), ("other-1", "database down")):
        await _put(aws, errors, message(key), **kept, **masstransit.error_attributes(reason, queue=queue))
    options = (
        "dead",
        "replay",
        "--queue",
        errors,
        "--reason",
        "DATABASE +down",
        "--key",
        "order-*",
        "--system",
        "tri*",
        "--newer-than",
        "1h",
    )

    tried = await _command(ministack, tmp_path, *options, "--dry-run")
    assert "order-1 would be sent again to" in tried.out
    assert (1, 3, 0) == (len(tried.out.splitlines()), await depth_of(aws, errors), await depth_of(aws, queue))
    assert "nothing to send again" in (await _command(ministack, tmp_path, *options, "--older-than", "1h")).err
    told = json.loads((await _command(ministack, tmp_path, *options, "--json")).out)

    assert [("order-1", queue, "")] == [(each["job_key"], each["destination"], each["error"]) for each in told]
    [(attributes, body)] = await lying_in(aws, queue)
    assert (kept, message("order-1")) == (attributes, body)
    assert {"order-2", "other-1"} == {json.loads(body)["key"] for _, body in await lying_in(aws, errors)}


async def test_no_more_are_sent_again_than_asked_for_and_to_the_queue_that_is_named(aws: Aws, ministack: Ministack, tmp_path: Path) -> None:
    lonely, other = await fresh_queue(aws), await fresh_queue(aws)
    for number in range(4):
        await _put(aws, lonely, message(f"job-{number}"))

    nowhere = await _command(ministack, tmp_path, "dead", "replay", "--all", "--queue", lonely)
    assert (1, 4) == (nowhere.status, nowhere.err.count("name one by --to"))
    some = await _command(ministack, tmp_path, "dead", "replay", "--all", "--queue", lonely, "--to", other, "--count", "3")

    assert (0, 3) == (some.status, len(some.out.splitlines()))
    assert (1, 3) == (await depth_of(aws, lonely), await depth_of(aws, other))


async def test_the_queue_that_sqs_moved_a_message_from_is_where_it_goes_back(aws: Aws) -> None:
    dead = await fresh_queue(aws)
    arn = await Names(aws).arn("sqs", dead)
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    queue = f"source-of-{dead}"
    await aws.call("sqs", "create_queue", QueueName=queue, Attributes={"RedrivePolicy": policy})
    await _put(aws, queue, message("moved"))
    url = await Names(aws).queue_url(queue)
    for _ in range(2):
        await aws.call("sqs", "receive_message", QueueUrl=url, VisibilityTimeout=0)

    async with _dead(aws, dead) as place:
        [found] = await _browsed(place)
        assert (queue, "moved") == (found.destination, found.contents.job_key)
        assert queue == await place.replay(found)

    assert [message("moved")] == [body for _, body in await lying_in(aws, queue)]
    assert 0 == await depth_of(aws, dead)


async def test_what_dies_again_while_it_is_sent_again_does_not_come_round_for_ever(aws: Aws) -> None:
    queue, errors = await _pair(aws)
    await _put(aws, errors, b"never readable", **masstransit.error_attributes("cannot be read", queue=queue))
    sent_again = 0
    async with _dead(aws, errors) as place:
        async for dead in place.browse():
            await place.replay(dead)
            sent_again += 1
            assert 1 == sent_again, "the second is the first, which a bridge has put aside once more"
            # SQS tells when it answers in whole seconds.
            await asyncio.sleep(1.1)
            await _put(aws, errors, b"never readable", **masstransit.error_attributes("cannot be read", queue=queue))

    assert (1, 1) == (await depth_of(aws, queue), await depth_of(aws, errors))


async def test_all_that_was_dead_is_sent_again_though_what_died_since_comes_before_it(ministack: Ministack) -> None:
    async with _NewestFirst(AwsAccess(endpoint=ministack.endpoint)) as aws:
        queue, errors = await _pair(aws)
        bodies = {f"never readable {number}".encode() for number in range(80)}
        for body in bodies:
            await _put(aws, errors, body, **masstransit.error_attributes("cannot be read", queue=queue))
        # SQS tells when it answers in whole seconds.
        await asyncio.sleep(1.1)
        sent_again = []
        async with _dead(aws, errors) as place:
            async for dead in place.browse():
                await place.replay(dead)
                sent_again.append(dead.body)
                if 60 == len(sent_again):
                    await asyncio.sleep(2.1)
                    for body in sent_again:
                        await _put(aws, errors, body, **masstransit.error_attributes("cannot be read", queue=queue))

        assert (80, bodies) == (len(sent_again), set(sent_again))
        assert (80, 60) == (await depth_of(aws, queue), await depth_of(aws, errors))


class _NewestFirst(Aws):
    """An order that SQS may choose, and the emulator never does."""

    def __init__(self, access: AwsAccess) -> None:
        super().__init__(access)
        self._received: list[dict[str, Any]] = []

    async def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        if operation != "receive_message":
            return await super().call(service, operation, **arguments)
        while found := (answer := await super().call(service, operation, **{**arguments, "WaitTimeSeconds": 0})).get("Messages"):
            self._received += found
        self._received.sort(key=lambda message: int(message["Attributes"]["SentTimestamp"]))
        given, self._received = self._received[-10:], self._received[:-10]
        return {**answer, "Messages": given}


async def test_a_type_of_masstransit_picks_its_messages(aws: Aws, ministack: Ministack, tmp_path: Path) -> None:
    queue, errors = await _pair(aws)
    for kind in ("SlideWanted", "ReportWanted"):
        event = {"messageId": "m", "messageType": [f"urn:message:A.B:{kind}"], "message": {"x": 1}}
        await _put(
            aws, errors, json.dumps(event).encode(), **masstransit.error_attributes("no", queue=f"amazonsqs://eu-west-1/{queue}?x=1")
        )

    told = await _command(ministack, tmp_path, "dead", "list", "--queue", errors, "--type", "slide*", "--json")

    assert [("SlideWanted", queue)] == [(each["type"], each["destination"]) for each in json.loads(told.out)]


async def _killed_replay(ministack: Ministack, aws: Aws, errors: str, folder: Path) -> None:
    """Kill a `bridge dead replay` as it asks for the delete; then what hides its message has run out."""
    deleting: list[dict[str, Any]] = []
    freed = threading.Event()

    def answer(asked: Asked) -> tuple[int, bytes] | tuple[int, bytes, Mapping[str, str]]:
        if asked.headers.get("x-amz-target", "").endswith(".DeleteMessage"):
            deleting.append(json.loads(asked.body))
            freed.wait(60)
            return 500, b""
        return passed_on(ministack.endpoint, asked)

    with local_http(answer) as between:
        environment = {
            **os.environ,
            **ministack.environment(),
            "AWS_ENDPOINT_URL": between.url,
            "BRIDGE_DATABASE": str(folder / "bridge.db"),
        }
        command = [sys.executable, "-m", "bridge", "dead", "replay", "--all", "--queue", errors]
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment)
        try:
            async with asyncio.timeout(60):
                while not deleting:
                    await asyncio.sleep(0.05)
        finally:
            process.kill()
            await process.wait()
            freed.set()
    held = {"QueueUrl": deleting[0]["QueueUrl"].replace(between.url, ministack.endpoint), "ReceiptHandle": deleting[0]["ReceiptHandle"]}
    await aws.call("sqs", "change_message_visibility", **held, VisibilityTimeout=0)


async def test_a_replay_that_is_killed_before_the_delete_and_done_again_is_one_message_of_a_fifo_queue(
    aws: Aws, ministack: Ministack, tmp_path: Path
) -> None:
    queue, errors = await _pair(aws, fifo=True)
    await _put(aws, errors, message("one"), group="a")
    await _killed_replay(ministack, aws, errors, tmp_path)
    assert 1 == await depth_of(aws, errors), "nothing is lost"

    async with _dead(aws, errors) as place:
        [found] = await _browsed(place)
        await place.replay(found)

    assert (0, 1) == (await depth_of(aws, errors), await depth_of(aws, queue))


async def test_a_failed_job_whose_replay_is_killed_and_done_again_is_done_once(aws: Aws, ministack: Ministack, tmp_path: Path) -> None:
    queue, errors = await _pair(aws)
    results = await fresh_queue(aws)
    settings = load(**trial_settings(tmp_path, sqs_queues=(queue,), results_queue=results, aws_endpoint=ministack.endpoint))
    body, job = message("one"), Job(key="one", system="trial", request={})
    await _put(aws, errors, body)
    async with open_store(settings) as store, open_transport(settings, local=local_transport(settings, store)) as transport:
        failed = await store.ledger.claim(job, worker="other", lease_seconds=60)
        assert isinstance(failed, Claim)
        await store.ledger.finish(failed, Outcome(succeeded=False, result={"reason": "it broke"}))
        for _ in range(2):
            await _killed_replay(ministack, aws, errors, tmp_path)
        async with SqsDeadQueue(aws, errors, payloads=Payloads(aws), reopen=store.jobs.reopen) as place:
            [found] = await _browsed(place)
            await place.replay(found)
        assert (0, 3) == (await depth_of(aws, errors), await depth_of(aws, queue))
        bridge = Bridge(settings, store, Systems(handlers=[TrialHandler()]), transport=transport)
        await asyncio.wait_for(bridge.run(asyncio.Event(), asyncio.Event(), until_idle=True), 60)
        done = await store.jobs.find("one")

    assert done is not None
    assert (State.SUCCEEDED, 0) == (done.state, await depth_of(aws, queue))
    assert ["one"] == [json.loads(each)["job"] for _, each in await lying_in(aws, results)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["replay", "--queue", "x"], "name one dead letter by its id"),
        (["replay", "--all", "--key", "a*"], "name one dead letter by its id"),
        (["list", "--older-than", "soon"], "--older-than: 'soon' is no time"),
        (["list", "--reason", "("], "is no regular expression"),
        (["show", "7"], "no dead message's id starts with '7'"),
        (["list", "--queue", "not-there"], "not-there"),
    ],
)
def test_what_is_not_right_is_one_clear_line(ministack: Ministack, tmp_path: Path, arguments: list[str], told: str) -> None:
    environment = {**ministack.environment(), "BRIDGE_DATABASE": str(tmp_path / "bridge.db")}
    done = bridge("dead", *arguments, folder=tmp_path, environment=environment)

    assert (2, 1) == (done.status, len(done.err.splitlines())), done
    assert told in done.err


async def test_a_message_of_unknown_origin_cannot_be_sent_anywhere(aws: Aws) -> None:
    lonely = await fresh_queue(aws)
    await _put(aws, lonely, b"?")
    async with _dead(aws, lonely) as place:
        [found] = await _browsed(place)
        with pytest.raises(PermanentError, match="name one by --to"):
            await place.replay(found)
    assert 1 == await depth_of(aws, lonely)
