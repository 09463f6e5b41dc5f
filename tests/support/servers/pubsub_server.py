"""A small Pub/Sub for tests: a real gRPC server on 127.0.0.1 that speaks Google's messages and forgets everything at its end.

It keeps what the documentation promises: ack deadlines, redelivery, exactly-once acknowledgements, flow control, ordering keys, and
dead-letter policies, without which it counts no deliveries.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
from google.protobuf import any_pb2, empty_pb2
from google.pubsub_v1 import types
from google.rpc import error_details_pb2, status_pb2

_LEASES = range(10, 601)
_STALE = "PERMANENT_FAILURE_INVALID_ACK_ID"
_PASSING = "TRANSIENT_FAILURE_UNORDERED_ACK_ID"


@dataclass(eq=False)
class _Held:
    """A message in a subscription."""

    message: types.PubsubMessage
    attempts: int = 0
    # Of the newest delivery; empty while nobody has it.
    ack_id: str = ""
    deadline: float = 0.0
    stream: _Stream | None = None

    @property
    def out(self) -> bool:
        return bool(self.ack_id) and self.deadline > time.monotonic()


@dataclass(eq=False)
class _Stream:
    lease: int
    capacity: int
    answers_beats: bool
    silent: bool = False


@dataclass(eq=False)
class Subscription:
    """What is kept of a subscription."""

    topic: str
    exactly_once: bool
    ordered: bool
    # Of a dead-letter policy, which moves a message to the topic `…-dead` after so many; 0 for none.
    most_deliveries: int
    messages: list[_Held] = field(default_factory=list)
    # All ids that were ever given out.
    given: dict[str, _Held] = field(default_factory=dict)


class PubsubServer:
    """What it holds, and the faults that it can have."""

    def __init__(self) -> None:
        self.port = 0
        self.topics: dict[str, list[types.PubsubMessage]] = {}
        self.subscriptions: dict[str, Subscription] = {}
        # Streams opened so far, and those that are open.
        self.opened = 0
        self.streams: list[_Stream] = []
        # Acknowledgements that fail for the moment.
        self.failing_settlements = 0
        # The status that calls and streams end with, while it is set.
        self.outage: grpc.StatusCode | None = None
        # Streams are let in and ended without an error.
        self.ends_at_once = False
        self._numbers = count(1)
        self._changed = asyncio.Event()

    @property
    def address(self) -> str:
        """What PUBSUB_EMULATOR_HOST says."""
        return f"127.0.0.1:{self.port}"

    def create(self, topic: str, *subscriptions: str, exactly_once: bool = True, ordered: bool = False, most_deliveries: int = 0) -> None:
        """Make a topic and its subscriptions, of the project `trial`. `most_deliveries`: of their dead-letter policy; 0 for none."""
        self.topics.setdefault(f"projects/trial/topics/{topic}", [])
        for name in subscriptions:
            path = f"projects/trial/subscriptions/{name}"
            self.subscriptions[path] = Subscription(
                topic=f"projects/trial/topics/{topic}", exactly_once=exactly_once, ordered=ordered, most_deliveries=most_deliveries
            )

    def publish(self, topic: str, body: bytes, *, ordering_key: str = "", **attributes: str) -> str:
        """Publish; returns the message's id."""
        message = types.PubsubMessage(data=body, attributes=attributes, ordering_key=ordering_key, message_id=str(next(self._numbers)))
        path = f"projects/trial/topics/{topic}"
        self.topics[path].append(message)
        for subscription in self.subscriptions.values():
            if subscription.topic == path:
                subscription.messages.append(_Held(message))
        self._wake()
        return message.message_id

    def fall_silent(self) -> None:
        """The streams that are open stay so, and say nothing any more."""
        for stream in self.streams:
            stream.silent = True

    def redeliver(self, subscription: str) -> None:
        """What somebody has is delivered again at once, as it may be at any time."""
        for held in self.subscriptions[f"projects/trial/subscriptions/{subscription}"].messages:
            held.deadline = 0.0
        self._wake()

    def left(self, subscription: str) -> int:
        """Messages that are not acknowledged."""
        return len(self.subscriptions[f"projects/trial/subscriptions/{subscription}"].messages)

    def out(self, subscription: str) -> int:
        """Messages that somebody has."""
        return sum(held.out for held in self.subscriptions[f"projects/trial/subscriptions/{subscription}"].messages)

    def deliveries(self, subscription: str) -> int:
        """Deliveries so far, of all its messages."""
        return len(self.subscriptions[f"projects/trial/subscriptions/{subscription}"].given)

    async def _publish(self, request: types.PublishRequest, context: Any) -> types.PublishResponse:
        await self._check(context, self.topics, request.topic)
        ids = []
        for message in request.messages:
            topic = request.topic.rpartition("/")[2]
            ids.append(self.publish(topic, message.data, ordering_key=message.ordering_key, **dict(message.attributes)))
        return types.PublishResponse(message_ids=ids)

    async def _acknowledge(self, request: types.AcknowledgeRequest, context: Any) -> empty_pb2.Empty:
        await self._check(context, self.subscriptions, request.subscription)
        subscription = self.subscriptions[request.subscription]
        failed = await self._valid(subscription, request.ack_ids)
        for ack_id in request.ack_ids:
            held = subscription.given.get(ack_id)
            if ack_id not in failed and held in subscription.messages:
                subscription.messages.remove(held)
        self._wake()
        await _tell(context, failed)
        return empty_pb2.Empty()

    async def _prolong(self, request: types.ModifyAckDeadlineRequest, context: Any) -> empty_pb2.Empty:
        await self._check(context, self.subscriptions, request.subscription)
        if request.ack_deadline_seconds not in range(601):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "ack_deadline_seconds must be between 0 and 600")
        subscription = self.subscriptions[request.subscription]
        failed = await self._valid(subscription, request.ack_ids)
        for ack_id in request.ack_ids:
            held = subscription.given.get(ack_id)
            if ack_id in failed or held is None or held.ack_id != ack_id or not held.out:
                continue
            held.deadline = time.monotonic() + request.ack_deadline_seconds
        self._wake()
        await _tell(context, failed)
        return empty_pb2.Empty()

    async def _pull(self, requests: AsyncIterator[types.StreamingPullRequest], context: Any) -> AsyncIterator[types.StreamingPullResponse]:
        first = await anext(requests)
        await self._check(context, self.subscriptions, first.subscription)
        if first.stream_ack_deadline_seconds not in _LEASES:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "stream_ack_deadline_seconds must be between 10 and 600")
        stream = _Stream(first.stream_ack_deadline_seconds, first.max_outstanding_messages, first.protocol_version >= 1)
        self.opened += 1
        if self.ends_at_once:
            return
        self.streams.append(stream)
        beats = asyncio.Event()
        reading = asyncio.create_task(self._read_beats(requests, beats))
        try:
            while True:
                self._changed.clear()
                if self.outage is not None:
                    await context.abort(self.outage, "an outage")
                if beats.is_set():
                    beats.clear()
                    if stream.answers_beats and not stream.silent:
                        yield types.StreamingPullResponse()
                if not stream.silent and (received := list(self._due(self.subscriptions[first.subscription], stream))):
                    yield types.StreamingPullResponse(received_messages=received)
                try:
                    # Deadlines pass without a word.
                    async with asyncio.timeout(0.02):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            reading.cancel()
            self.streams.remove(stream)

    async def _read_beats(self, requests: AsyncIterator[types.StreamingPullRequest], beats: asyncio.Event) -> None:
        async for _ in requests:
            beats.set()

    def _due(self, subscription: Subscription, stream: _Stream) -> Iterator[types.ReceivedMessage]:
        """What the stream may get now."""
        free = stream.capacity - sum(held.out and held.stream is stream for held in subscription.messages)
        keys: dict[str, _Held] = {}
        for held in list(subscription.messages):
            if subscription.most_deliveries and held.attempts >= subscription.most_deliveries and not held.out:
                subscription.messages.remove(held)
                self.topics.setdefault(f"{subscription.topic}-dead", []).append(held.message)
                continue
            key = held.message.ordering_key if subscription.ordered else ""
            before = keys.get(key) if key else None
            if key:
                # A message that comes again brings those behind it again.
                if before is not None and not before.out:
                    held.ack_id = ""
                keys[key] = held
            if held.out or free <= 0 or (before is not None and not (before.out and before.stream is stream)):
                continue
            free -= 1
            held.attempts += 1
            held.ack_id = base64.b64encode(f"{held.message.message_id}/{held.attempts}".encode()).decode()
            held.deadline = time.monotonic() + stream.lease
            held.stream = stream
            subscription.given[held.ack_id] = held
            counted = held.attempts if subscription.most_deliveries else 0
            yield types.ReceivedMessage(ack_id=held.ack_id, message=held.message, delivery_attempt=counted)

    async def _valid(self, subscription: Subscription, ack_ids: Any) -> dict[str, str]:
        """What an exactly-once subscription has to say against these ids."""
        if self.failing_settlements > 0:
            self.failing_settlements -= 1
            return dict.fromkeys(ack_ids, _PASSING)
        if not subscription.exactly_once:
            return {}
        valid = {held.ack_id for held in subscription.messages if held.out}
        return {ack_id: _STALE for ack_id in ack_ids if ack_id not in valid}

    async def _check(self, context: Any, known: Any, path: str) -> None:
        if self.outage is not None:
            await context.abort(self.outage, "an outage")
        if path not in known:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Resource not found (resource={path.rpartition('/')[2]}).")

    def _wake(self) -> None:
        self._changed.set()


async def _tell(context: Any, failed: dict[str, str]) -> None:
    if not failed:
        return
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="EXACTLY_ONCE_ACKID_FAILURE", domain="pubsub.googleapis.com", metadata=failed))
    status = status_pb2.Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message="Some ack ids are not valid.", details=[detail])
    await context.abort(
        grpc.StatusCode.FAILED_PRECONDITION, status.message, trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),)
    )


@asynccontextmanager
async def pubsub_server() -> AsyncIterator[PubsubServer]:
    """Start a server in this event loop; it is stopped at the end."""
    state = PubsubServer()
    server = grpc.aio.server()
    unary, streaming = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    methods = {
        "Publisher": {"Publish": unary(state._publish, *_coding(types.PublishRequest, types.PublishResponse))},
        "Subscriber": {
            "Acknowledge": unary(state._acknowledge, types.AcknowledgeRequest.deserialize, empty_pb2.Empty.SerializeToString),
            "ModifyAckDeadline": unary(state._prolong, types.ModifyAckDeadlineRequest.deserialize, empty_pb2.Empty.SerializeToString),
            "StreamingPull": streaming(state._pull, *_coding(types.StreamingPullRequest, types.StreamingPullResponse)),
        },
    }
    for service, handlers in methods.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"google.pubsub.v1.{service}", handlers),))
    state.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield state
    finally:
        await server.stop(0)


def _coding(request: Any, response: Any) -> tuple[Any, Any]:
    return request.deserialize, response.serialize
