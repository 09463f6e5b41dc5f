"""What SQS and SNS do beyond what every source and sink does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from bridge.app import local_transport
from bridge.aws.access import Aws, AwsAccess
from bridge.aws.batches import Batches
from bridge.aws.names import Names
from bridge.aws.payloads import PayloadPlace, Payloads
from bridge.aws.topology import Change, Topology, make, missing
from bridge.envelopes import masstransit, native
from bridge.errors import ConfigurationError, LeaseLostError, PermanentError, PoisonError, TransientError
from bridge.job import UNREADABLE, Delivery, Event, Job, Message, Outcome
from bridge.ledger.port import Claim
from bridge.settings import Settings, load
from bridge.sinks.routed import RoutedSink
from bridge.sinks.sns import SnsSink
from bridge.sinks.sqs import SqsQueues, SqsSink
from bridge.sinks.sqs_errors import SqsErrorQueues
from bridge.sources.sqs import RENEWED_SECONDS, SqsSource
from bridge.store import open_store
from bridge.systems.router import Router
from bridge.systems.wsi import platform_messages
from bridge.transports.opening import open_transport
from bridge.transports.republishing import republish
from tests.support.patience import PATIENCE_SECONDS
from tests.support.servers.ministack import Ministack
from tests.support.servers.sqs import aws_of, fresh_queue, lying_in

# Outlasts whatever pause a machine makes. A lease that is to run out does so on the queue as the clock of our source is moved past it.
LEASE = 3600.0
MESSAGE = "00c60000-5d1b-0015-2f6c-08dd2b1f3a5c"


@pytest.fixture
async def aws(ministack: Ministack) -> AsyncIterator[Aws]:
    async with aws_of(ministack) as aws:
        yield aws


@pytest.fixture
async def queue(aws: Aws) -> str:
    return await fresh_queue(aws)


async def _send(aws: Aws, queue: str, *bodies: bytes, group: str = "") -> None:
    queues = SqsQueues(aws)
    for body in bodies:
        await queues.send(queue, body, message_id=str(uuid4()), group=group)


async def _one(source: SqsSource, *, wait_seconds: float = PATIENCE_SECONDS) -> Delivery:
    (delivery,) = await source.receive(limit=1, wait_seconds=wait_seconds)
    return delivery


async def _run_out(aws: Aws, delivery: Delivery) -> None:
    """Let the lease that the queue has given run out now."""
    url = await Names(aws).queue_url(delivery.queue)
    await aws.call("sqs", "change_message_visibility", QueueUrl=url, ReceiptHandle=delivery.receipt, VisibilityTimeout=0)


def _message(destination: str, **attributes: str) -> Message:
    return Message(message_id=str(uuid4()), job_key="job", type="completed", destination=destination, body=b"{}", attributes=attributes)


async def test_a_poll_that_is_cancelled_gives_back_what_it_brings(aws: Aws, queue: str) -> None:
    source = SqsSource(aws, [queue], lease_seconds=LEASE)
    poll = asyncio.create_task(source.receive(limit=5, wait_seconds=5))
    await asyncio.sleep(0.3)
    poll.cancel()
    await asyncio.gather(poll, return_exceptions=True)
    await _send(aws, queue, b"late")
    await source.close()

    assert b"late" == (await _one(SqsSource(aws, [queue], lease_seconds=LEASE))).body


async def test_a_message_that_comes_again_to_its_holder_lends_it_the_newer_receipt(aws: Aws, queue: str) -> None:
    source = SqsSource(aws, [queue], lease_seconds=LEASE)
    await _send(aws, queue, b"one")
    held = await _one(source)
    await source.renew(held, lease_seconds=0)  # as when the queue's clock and ours disagree

    assert not await source.receive(limit=1, wait_seconds=0), "the work on it goes on; it is not begun twice"
    await source.renew(held, lease_seconds=LEASE)
    await source.acknowledge(held)
    assert [] == await lying_in(aws, queue, wait_seconds=1)


async def test_a_message_that_its_holder_has_dropped_is_delivered_again(aws: Aws, queue: str) -> None:
    ahead = 0.0
    source = SqsSource(aws, [queue], lease_seconds=LEASE, clock=lambda: time.monotonic() + ahead)
    await _send(aws, queue, b"one")
    dropped = await _one(source)
    await _run_out(aws, dropped)
    ahead = LEASE + 1

    again = await _one(source)
    assert ((b"one", 1), (b"one", 2)) == ((dropped.body, dropped.receive_count), (again.body, again.receive_count))


async def test_a_lease_is_renewed_up_to_a_bound_and_then_left_to_run_out(aws: Aws, queue: str) -> None:
    ahead = 0.0
    source = SqsSource(aws, [queue], lease_seconds=1, clock=lambda: time.monotonic() + ahead)
    await _send(aws, queue, b"one")
    delivery = await _one(source)
    ahead = RENEWED_SECONDS + 1
    await source.renew(delivery, lease_seconds=LEASE)

    assert b"one" == (await _one(SqsSource(aws, [queue], lease_seconds=LEASE))).body


@pytest.mark.parametrize(("receipts", "waits"), [(3, True), (100, False)])
async def test_what_sqs_gives_up_after_few_receipts_comes_back_after_its_lease(aws: Aws, receipts: int, waits: bool) -> None:
    dead, queue = await fresh_queue(aws), await fresh_queue(aws)
    policy = {"deadLetterTargetArn": await Names(aws).arn("sqs", dead), "maxReceiveCount": receipts}
    url = await Names(aws).queue_url(queue)
    await aws.call("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    source = SqsSource(aws, [queue], lease_seconds=4)
    await _send(aws, queue, b"waits")

    [first] = await source.receive(limit=1, wait_seconds=PATIENCE_SECONDS)
    began = time.monotonic()
    await source.release(first, delay_seconds=0.5)
    while not (found := await source.receive(limit=1, wait_seconds=1)):
        assert time.monotonic() < began + 60
    assert (time.monotonic() - began > 3) == waits

    [again] = found
    began = time.monotonic()
    await source.release(again, delay_seconds=0)  # such as by a bridge that stops
    assert await source.receive(limit=1, wait_seconds=2)
    assert time.monotonic() - began < 3


async def test_a_queue_that_did_not_tell_what_it_does_is_asked_again(aws: Aws, queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, asked = time.monotonic(), []
    source = SqsSource(aws, [queue], lease_seconds=4, clock=lambda: seconds)
    call = aws.call

    async def refused(service: str, operation: str, **values: Any) -> Any:
        if operation == "get_queue_attributes":
            asked.append(operation)
            raise ConfigurationError("there are no credentials")
        return await call(service, operation, **values)

    with monkeypatch.context() as patched:
        patched.setattr(aws, "call", refused)
        for _ in range(2):
            await _send(aws, queue, b"waits")
            await source.release(await _one(source), delay_seconds=60)
    assert len(asked) == 1

    seconds += 61
    dead = await fresh_queue(aws)
    policy = {"deadLetterTargetArn": await Names(aws).arn("sqs", dead), "maxReceiveCount": 3}
    url = await Names(aws).queue_url(queue)
    await aws.call("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    await _send(aws, queue, b"waits")
    await source.release(await _one(source), delay_seconds=0.5)
    began = time.monotonic()
    assert await source.receive(limit=1, wait_seconds=1)
    assert time.monotonic() - began > 3


async def test_messages_of_a_group_come_one_at_a_time_and_in_order(aws: Aws) -> None:
    queue = await fresh_queue(aws, fifo=True)
    source = SqsSource(aws, [queue], lease_seconds=LEASE)
    await _send(aws, queue, b"a1", b"a2", group="a")
    await _send(aws, queue, b"b1", group="b")

    first = await source.receive(limit=5, wait_seconds=PATIENCE_SECONDS)
    assert {b"a1", b"b1"} == {delivery.body for delivery in first}
    assert not await source.receive(limit=5, wait_seconds=0)
    for delivery in first:
        await source.acknowledge(delivery)
    assert b"a2" == (await _one(source)).body


async def test_a_failed_message_keeps_its_place_in_its_group(aws: Aws) -> None:
    queue = await fresh_queue(aws, fifo=True)
    source = SqsSource(aws, [queue], lease_seconds=LEASE)
    await _send(aws, queue, b"a1", b"a2", group="a")
    await source.release(await _one(source), delay_seconds=0)

    assert b"a1" == (await _one(source)).body


async def test_urgent_messages_go_first_and_others_get_their_turn(aws: Aws) -> None:
    urgent, usual = await fresh_queue(aws), await fresh_queue(aws)
    await _send(aws, usual, *[b"usual"] * 3)
    await _send(aws, urgent, *[b"urgent"] * 7)
    source = SqsSource(aws, [urgent, usual], lease_seconds=LEASE, urgent_in_a_row=3)

    order = [(await _one(source)).body for _ in range(10)]

    assert [b"urgent"] * 3 + [b"usual"] + [b"urgent"] * 3 + [b"usual"] + [b"urgent", b"usual"] == order


async def test_a_large_body_goes_through_s3_and_comes_back_whole(aws: Aws, queue: str) -> None:
    bucket = f"bodies-{uuid4().hex[:8]}"
    await aws.call("s3", "create_bucket", Bucket=bucket)
    payloads = Payloads(aws, PayloadPlace(bucket=bucket, most_bytes=400_000))
    large = b"\xff" * 300_000
    await SqsQueues(aws, payloads=payloads).send(queue, large, message_id="large", attributes={"kind": "test"})
    delivery = await _one(SqsSource(aws, [queue], lease_seconds=LEASE, payloads=payloads))

    assert (large, "test") == (delivery.body, delivery.attributes["kind"])
    with pytest.raises(PermanentError, match="at most 400000"):
        await payloads.pack("larger", b"x" * 400_001, {})
    with pytest.raises(PermanentError, match="BRIDGE_SQS_PAYLOAD_BUCKET"):
        await Payloads(aws).pack("nowhere", large, {})


async def test_without_a_bucket_a_body_goes_through_a_queue_that_takes_it_and_else_both_remedies_are_told(aws: Aws, queue: str) -> None:
    large = b"x" * 900_000
    for name, most in ((queue, 262_144), (roomy := await fresh_queue(aws), 1_048_576)):
        url = await Names(aws).queue_url(name)
        await aws.call("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"MaximumMessageSize": str(most)})

    queues = SqsQueues(aws)
    await asyncio.gather(*(queues.send(roomy, large, message_id=str(number), attributes={"kind": "test"}) for number in range(3)))
    with pytest.raises(PermanentError, match=r"900008 bytes.* takes 262144.*BRIDGE_SQS_PAYLOAD_BUCKET.*MaximumMessageSize"):
        await queues.send(queue, large, message_id="large", attributes={"a": "b"})

    assert [large] * 3 == [body for _, body in await lying_in(aws, roomy)]

    await aws.call("sqs", "set_queue_attributes", QueueUrl=await Names(aws).queue_url(queue), Attributes={"MaximumMessageSize": "1048576"})
    await queues.send(queue, large, message_id="large", attributes={"a": "b"})
    assert [large] == [body for _, body in await lying_in(aws, queue)], "as the error advised, without a new start"


@pytest.mark.parametrize("bucket", ["", "bodies"])
async def test_a_bridge_that_starts_tells_whether_large_messages_are_carried(
    ministack: Ministack, queue: str, tmp_path: Path, bucket: str
) -> None:
    settings = _settings(ministack, queue, tmp_path).model_copy(update={"sqs_payload_bucket": bucket})
    with capture_logs() as logs:
        async with open_store(settings) as store, open_transport(settings, local=local_transport(settings, store)):
            pass

    assert ([] if bucket else ["BRIDGE_SQS_PAYLOAD_BUCKET"]) == [each["setting"] for each in logs if each["event"] == "no_payload_bucket"]


async def test_what_fits_into_a_queue_fits_into_its_dead_letter_queue(aws: Aws, queue: str) -> None:
    body = b'{"job_type": "broken", "tests": "' + b"x" * 261_000 + b'"}'
    await fresh_queue(aws, name=f"{queue}_error")
    await _send(aws, queue, body)
    delivery = await _one(SqsSource(aws, [queue], lease_seconds=LEASE))

    await SqsErrorQueues(SqsQueues(aws)).put(delivery, reason="broken")

    ((_, kept),) = await lying_in(aws, f"{queue}_error")
    assert body == kept


async def test_a_pointer_to_another_bucket_or_to_nothing_is_poison(aws: Aws, queue: str) -> None:
    bucket = f"bodies-{uuid4().hex[:8]}"
    await aws.call("s3", "create_bucket", Bucket=bucket)
    payloads = Payloads(aws, PayloadPlace(bucket=bucket))
    for place, reason in ((("secrets", "key"), "not the one that is set"), ((bucket, "gone"), "cannot be had")):
        pointer = json.dumps(["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": place[0], "s3Key": place[1]}])
        await _send(aws, queue, pointer.encode())
        delivery = await _one(SqsSource(aws, [queue], lease_seconds=LEASE, payloads=payloads))
        assert (pointer.encode(), True) == (delivery.body, reason in delivery.attributes[UNREADABLE])
        with pytest.raises(PoisonError, match=reason):
            Router([]).parse(delivery)


async def test_one_bad_entry_spoils_no_other_of_its_batch(aws: Aws, queue: str) -> None:
    source = SqsSource(aws, [queue], lease_seconds=LEASE)
    await _send(aws, queue, b"one", b"two")
    held = await source.receive(limit=2, wait_seconds=PATIENCE_SECONDS)
    batches = Batches(aws, "delete_message_batch", await Names(aws).queue_url(queue))

    outcomes = await asyncio.gather(
        batches.add({"ReceiptHandle": "stale"}), *(batches.add({"ReceiptHandle": one.receipt}) for one in held), return_exceptions=True
    )

    assert [True, False, False] == [isinstance(outcome, LeaseLostError) for outcome in outcomes]
    assert [] == await lying_in(aws, queue)


class _Flaky(Aws):
    """Answers that the service is at fault for the first entry of the first batch."""

    calls: list[int]

    async def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        entries = arguments["Entries"]
        self.calls = [*getattr(self, "calls", []), len(entries)]
        if len(self.calls) > 1:
            return {"Successful": [{"Id": entry["Id"]} for entry in entries]}
        failed = {"Id": entries[0]["Id"], "Code": "InternalError", "SenderFault": False}
        return {"Successful": [{"Id": entry["Id"]} for entry in entries[1:]], "Failed": [failed]}


async def test_only_the_entry_that_failed_is_sent_again() -> None:
    async with _Flaky() as aws:
        batches = Batches(aws, "send_message_batch", "url")
        await asyncio.gather(*(batches.add({"MessageBody": "x"}) for _ in range(12)))
    assert [10, 2, 1] == aws.calls


async def test_a_queue_that_is_missing_is_told_with_the_fix(aws: Aws) -> None:
    with pytest.raises(ConfigurationError, match=r"no-such-queue.*topology apply"):
        await SqsSource(aws, ["no-such-queue"], lease_seconds=LEASE).receive(limit=1, wait_seconds=0)


async def test_an_endpoint_that_does_not_answer_is_transient() -> None:
    async with Aws(AwsAccess(endpoint="http://127.0.0.1:9")) as nowhere:
        with pytest.raises(TransientError):
            await nowhere.call("sqs", "list_queues")


async def test_a_role_is_taken_on(ministack: Ministack) -> None:
    async with Aws(AwsAccess(endpoint=ministack.endpoint, role_arn="arn:aws:iam::000000000000:role/worker")) as aws:
        identity = await aws.call("sts", "get_caller_identity")
    assert "assumed-role/worker" in identity["Arn"]


async def _topic(aws: Aws, queue: str) -> str:
    """A new topic whose messages lie in the queue, raw."""
    topic = f"t-{uuid4().hex[:8]}"
    async for change in missing(aws, Topology(topics=[topic], subscriptions={queue: [topic]})):
        await make(aws, change)
    return topic


async def test_a_destinations_scheme_says_which_sink(aws: Aws, queue: str) -> None:
    other = await fresh_queue(aws)
    topic = await _topic(aws, queue)
    sqs = SqsSink(SqsQueues(aws), queue=other)
    sink = RoutedSink(sqs, {"sqs": sqs, "sns": SnsSink(aws)})
    by_topic, by_queue, by_default = _message(f"sns:{topic}", kind="a"), _message(f"sqs:{other}"), _message("")
    for message in (by_topic, by_queue, by_default):
        await sink.send(message)

    ((attributes, body),) = await lying_in(aws, queue, wait_seconds=1)
    assert (b"{}", "a", by_topic.message_id, "job") == (body, attributes["kind"], attributes["MessageId"], attributes["job_key"])
    assert {by_queue.message_id, by_default.message_id} == {attributes["MessageId"] for attributes, _ in await lying_in(aws, other)}


async def test_more_attributes_than_raw_subscriptions_carry_are_refused(aws: Aws) -> None:
    with pytest.raises(PermanentError, match="more than 10"):
        await SnsSink(aws).send(_message("topic", **{f"a{number}": "x" for number in range(8)}))


async def test_poison_lies_in_the_error_queue_before_it_is_acknowledged_and_its_sender_is_told(aws: Aws, queue: str) -> None:
    for name in (f"{queue}_error", f"{queue}_skipped", f"{queue}-faults"):
        await fresh_queue(aws, name=name)
    errors = SqsErrorQueues(SqsQueues(aws), skips=lambda delivery: b"Other" in delivery.body)
    request = {"messageId": MESSAGE, "messageType": ["urn:message:A:B"], "message": {"x": 1}}
    enveloped = json.dumps({**request, "faultAddress": f"amazonsqs://r/{queue}-faults"})
    await _send(aws, queue, enveloped.encode(), b'{"type": "Other"}')
    for delivery in await SqsSource(aws, [queue], lease_seconds=LEASE).receive(limit=2, wait_seconds=PATIENCE_SECONDS):
        await errors.put(delivery, reason="the field s3Key\nis missing")

    ((told, body),) = await lying_in(aws, f"{queue}_error")
    assert (enveloped.encode(), "fault", "the field s3Key is missing") == (body, told["MT-Reason"], told["MT-Fault-Message"])
    ((skipped, _),) = await lying_in(aws, f"{queue}_skipped")
    assert "skipped" == skipped["MT-Reason"]
    ((_, fault),) = await lying_in(aws, f"{queue}-faults")
    assert "urn:message:MassTransit:Fault[[A:B]]" == json.loads(fault)["messageType"][0]
    assert MESSAGE == masstransit.read(fault).event["faultedmessageid"]


async def test_the_topology_is_made_once_and_other_statements_of_a_policy_are_kept(aws: Aws) -> None:
    queue, topic = f"q-{uuid4().hex[:8]}", f"t-{uuid4().hex[:8]}"
    wanted = Topology(queues=[queue], outputs=[f"{queue}-out"], topics=[topic], subscriptions={queue: [topic]})
    dry = [change.text async for change in missing(aws, wanted)]
    made: list[Change] = []
    async for change in missing(aws, wanted):
        await make(aws, change)
        made.append(change)

    assert dry == [change.text for change in made]
    assert [
        f"create queue {queue}_error",
        f"create queue {queue}_skipped",
        f"create queue {queue}",
        f"create queue {queue}-out",
        f"create topic {topic}",
        f"subscribe queue {queue} to topic {topic} (raw)",
        f"let {topic} send to queue {queue}",
    ] == dry
    assert [] == [change.text async for change in missing(aws, wanted)]
    url = await Names(aws).queue_url(queue)
    own = json.dumps({"Version": "2012-10-17", "Statement": [{"Sid": "Own", "Effect": "Deny", "Principal": "*", "Action": "sqs:*"}]})
    await aws.call("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"Policy": own})
    async for change in missing(aws, wanted):
        await make(aws, change)
    told = await aws.call("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["Policy", "RedrivePolicy"])
    assert ["Own", "LaminaTopics"] == [one["Sid"] for one in json.loads(told["Attributes"]["Policy"])["Statement"]]
    assert json.loads(told["Attributes"]["RedrivePolicy"])["deadLetterTargetArn"].endswith(f"{queue}_error")


async def test_a_dead_letter_is_replayed_to_its_queue_with_its_bytes(ministack: Ministack, aws: Aws, queue: str, tmp_path: Path) -> None:
    async with open_store(_settings(ministack, queue, tmp_path)) as store:
        await _send(aws, queue, b"\x00broken")
        source = SqsSource(aws, [queue], lease_seconds=LEASE)
        delivery = await _one(source)
        await store.dead_letters.bury(delivery, reason="not JSON")
        await source.acknowledge(delivery)
        (letter,) = await store.dead_letters.list()
        await store.replay(letter.id)

    ((_, body),) = await lying_in(aws, queue, wait_seconds=1)
    assert b"\x00broken" == body


async def test_a_submitted_job_goes_to_the_most_urgent_queue(ministack: Ministack, aws: Aws, queue: str, tmp_path: Path) -> None:
    async with open_store(_settings(ministack, queue, tmp_path)) as store:
        await store.submit(native.write(Job(key="k", system="labs", request={"tests": []})))

    ((_, body),) = await lying_in(aws, queue, wait_seconds=1)
    assert "k" == native.read(body).key


async def test_an_answer_is_republished_under_one_new_id(ministack: Ministack, aws: Aws, queue: str, tmp_path: Path) -> None:
    topic = "HiveOrders_Api_Shared_Events-WsiAnalysisCompletedEvent"
    async for change in missing(aws, Topology(topics=[topic], subscriptions={queue: [topic]})):
        await make(aws, change)
    job = platform_messages.posted_job({"jobId": str(uuid4()), "uploadId": str(uuid4()), "tenantId": 1, "s3Key": "k"})
    job = replace(job, request={**job.request, "answer": platform_messages.BY_EVENT})
    settings = _settings(ministack, queue, tmp_path)
    async with open_store(settings) as store:
        claim = await store.ledger.claim(job, worker="w", lease_seconds=60)
        assert isinstance(claim, Claim)
        await store.ledger.finish(claim, Outcome(succeeded=True, result={"result_s3_key": "results/1"}))
        record = await store.jobs.find(job.key)
        assert record is not None
        told = {await republish(settings, record) for _ in range(2)}

    (message_id,) = told
    first = Event(type="completed", destination="", body=b"").message_id(job.key)
    envelopes = [json.loads(body) for _, body in await lying_in(aws, queue, wait_seconds=1)]
    assert {message_id} == {envelope["messageId"] for envelope in envelopes} != {first}
    assert "results/1" == envelopes[0]["message"]["resultS3Key"]


def _settings(ministack: Ministack, queue: str, folder: Path) -> Settings:
    return load(database=str(folder / "bridge.db"), aws_endpoint=ministack.endpoint, sqs_queues=(queue,))
