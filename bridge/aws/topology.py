"""Queues, topics and subscriptions: what there should be, what there is, and making the difference."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.aws.access import Aws
from bridge.aws.names import Names, is_fifo, neighbour, short_name
from bridge.errors import ConfigurationError

_KEPT_SECONDS = 14 * 24 * 3600
# SQS' own count takes interruptions for failures; ours does not. This is for messages that kill every bridge, and the most SQS allows.
_MOST_RECEIPTS = 1000


@dataclass(frozen=True, kw_only=True)
class Topology:
    """What there should be. Names only, or the URLs and ARNs of what others made."""

    # Each with a queue for errors and one for what is somebody else's.
    queues: Sequence[str] = ()
    # Queues that are only sent to.
    outputs: Sequence[str] = ()
    topics: Sequence[str] = ()
    # Topics by the queue that takes what they send, raw.
    subscriptions: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that is missing."""

    # For people: create queue jobs.
    text: str
    service: str
    operation: str
    arguments: Mapping[str, Any]


async def missing(aws: Aws, topology: Topology) -> AsyncIterator[Change]:
    """What there is not yet, in the order in which it has to be made; each is looked for once those before it are there."""
    names = Names(aws)
    for queue in topology.queues:
        for suffix in ("_error", "_skipped", ""):
            name = neighbour(queue, suffix) if suffix else queue
            async for change in _queue(aws, names, name, errors="" if suffix else neighbour(queue, "_error")):
                yield change
    for queue in topology.outputs:
        async for change in _queue(aws, names, queue, errors=""):
            yield change
    for topic in topology.topics:
        if not await _exists(aws, "sns", "get_topic_attributes", TopicArn=await names.topic_arn(topic)):
            attributes = {"FifoTopic": "true"} if is_fifo(topic) else {}
            yield Change(
                text=f"create topic {topic}", service="sns", operation="create_topic", arguments={"Name": topic, "Attributes": attributes}
            )
    for queue, topics in topology.subscriptions.items():
        async for change in _subscriptions(aws, names, queue, topics):
            yield change


async def make(aws: Aws, change: Change) -> None:
    """Make one thing. Raises as `Aws.call` does."""
    await aws.call(change.service, change.operation, **change.arguments)


async def _queue(aws: Aws, names: Names, name: str, *, errors: str) -> AsyncIterator[Change]:
    if "://" in name or await _exists(aws, "sqs", "get_queue_url", QueueName=name):
        return
    attributes = {"MessageRetentionPeriod": str(_KEPT_SECONDS)}
    if is_fifo(name):
        attributes["FifoQueue"] = "true"
    if errors:
        policy = {"deadLetterTargetArn": await names.arn("sqs", errors), "maxReceiveCount": _MOST_RECEIPTS}
        attributes["RedrivePolicy"] = json.dumps(policy)
    yield Change(
        text=f"create queue {name}", service="sqs", operation="create_queue", arguments={"QueueName": name, "Attributes": attributes}
    )


async def _subscriptions(aws: Aws, names: Names, queue: str, topics: Sequence[str]) -> AsyncIterator[Change]:
    arn = await names.arn("sqs", short_name(queue))
    topic_arns = [await names.topic_arn(topic) for topic in topics]
    for topic, topic_arn in zip(topics, topic_arns, strict=True):
        if arn not in await _subscribed(aws, topic_arn):
            yield Change(
                text=f"subscribe queue {short_name(queue)} to topic {topic} (raw)",
                service="sns",
                operation="subscribe",
                arguments={"TopicArn": topic_arn, "Protocol": "sqs", "Endpoint": arn, "Attributes": {"RawMessageDelivery": "true"}},
            )
    wanted = _policy(arn, topic_arns)
    found = await _queue_policy(aws, names, queue)
    if wanted["Statement"][0] not in found.get("Statement", ()):
        others = [statement for statement in found.get("Statement", ()) if statement.get("Sid") != wanted["Statement"][0]["Sid"]]
        policy = {**wanted, "Statement": [*others, *wanted["Statement"]]}
        # The queue may be one that was made only now.
        url = await _url(names, queue)
        yield Change(
            text=f"let {', '.join(topics)} send to queue {short_name(queue)}",
            service="sqs",
            operation="set_queue_attributes",
            arguments={"QueueUrl": url, "Attributes": {"Policy": json.dumps(policy)}},
        )


def _policy(queue_arn: str, topic_arns: Sequence[str]) -> dict[str, Any]:
    statement = {
        "Sid": "LaminaTopics",
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": list(topic_arns)}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


async def _queue_policy(aws: Aws, names: Names, queue: str) -> dict[str, Any]:
    try:
        url = await names.queue_url(queue)
        told = await aws.call("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["Policy"])
    except ConfigurationError:
        return {}
    policy: dict[str, Any] = json.loads(told.get("Attributes", {}).get("Policy") or "{}")
    return policy


async def _url(names: Names, queue: str) -> str:
    try:
        return await names.queue_url(queue)
    except ConfigurationError:  # in a dry run it is not there
        return queue


async def _subscribed(aws: Aws, topic_arn: str) -> set[str]:
    found: set[str] = set()
    token: dict[str, str] = {}
    while True:
        try:
            told = await aws.call("sns", "list_subscriptions_by_topic", TopicArn=topic_arn, **token)
        except ConfigurationError:
            return found
        found |= {one["Endpoint"] for one in told.get("Subscriptions", ())}
        if not told.get("NextToken"):
            return found
        token = {"NextToken": told["NextToken"]}


async def _exists(aws: Aws, service: str, operation: str, **arguments: str) -> bool:
    try:
        await aws.call(service, operation, **arguments)
    except ConfigurationError as error:
        if "NonExistentQueue" in str(error) or "QueueDoesNotExist" in str(error) or "(NotFound)" in str(error):
            return False
        raise
    return True
