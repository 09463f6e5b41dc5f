"""SQS for tests: access to an emulator, fresh queues, and what lies in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import uuid4

from bridge.aws.access import Aws, AwsAccess
from bridge.aws.names import Names
from bridge.aws.payloads import Payloads, plain_attributes
from tests.support.servers.ministack import Ministack


def aws_of(ministack: Ministack) -> Aws:
    """Access to the emulator. Clients take a while to make, so that all tests of a process share them."""
    return _SharingAws(ministack.endpoint)


class _SharingAws(Aws):
    _of_endpoint: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, endpoint: str) -> None:
        super().__init__(AwsAccess(endpoint=endpoint))
        self._clients = self._of_endpoint.setdefault(endpoint, {})

    async def close(self) -> None:
        self._clients = {}
        await super().close()


async def fresh_queue(aws: Aws, *, fifo: bool = False, name: str = "") -> str:
    """The name of a new queue that is empty."""
    name = name or f"q-{uuid4().hex[:12]}{'.fifo' if fifo else ''}"
    await aws.call("sqs", "create_queue", QueueName=name, Attributes={"FifoQueue": "true"} if fifo else {})
    return name


async def lying_in(
    aws: Aws, queue: str, *, wait_seconds: int = 0, payloads: Payloads | None = None
) -> list[tuple[Mapping[str, str], bytes]]:
    """Attributes and bodies of all messages of a queue; they are taken out of it."""
    url = await Names(aws).queue_url(queue)
    found = []
    while messages := await _received(aws, url, wait_seconds):
        for message in messages:
            attributes = plain_attributes(message.get("MessageAttributes", {}))
            body, attributes = await (payloads or Payloads(aws)).unpack(message["Body"], attributes)
            found.append((attributes, body))
            await aws.call("sqs", "delete_message", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


async def _received(aws: Aws, url: str, wait_seconds: int) -> list[dict[str, Any]]:
    answer = await aws.call(
        "sqs", "receive_message", QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=wait_seconds, MessageAttributeNames=["All"]
    )
    return list(answer.get("Messages", ()))


async def depth_of(aws: Aws, queue: str) -> int:
    """How many messages a queue holds, hidden ones included."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
    told = await aws.call("sqs", "get_queue_attributes", QueueUrl=await Names(aws).queue_url(queue), AttributeNames=names)
    return sum(int(count) for count in told["Attributes"].values())
