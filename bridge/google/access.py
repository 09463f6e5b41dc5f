"""The connection to Pub/Sub. Alone, with its neighbours, in importing Google's clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import google.auth
import grpc
import stamina
from google.pubsub_v1.services.publisher import PublisherAsyncClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from google.pubsub_v1.services.subscriber import SubscriberAsyncClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcAsyncIOTransport
from google.pubsub_v1.types import PubsubMessage, StreamingPullRequest, StreamingPullResponse

from bridge.errors import ConfigurationError, LeaseLostError, TransientError
from bridge.google.faults import FAULTS, passing_ids, stale_ids, translated

_HOST = "pubsub.googleapis.com:443"
_SCOPES = ("https://www.googleapis.com/auth/pubsub",)
_CALL_SECONDS = 10.0
_LARGEST_BYTES = 10 * 1024 * 1024
# A dead connection is noticed though nothing is sent.
_OPTIONS = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_receive_message_length", 2 * _LARGEST_BYTES),
    ("grpc.max_send_message_length", 2 * _LARGEST_BYTES),
)


class PubsubAccess:
    """Pub/Sub's calls that we need, with our errors. Connects at the first of them."""

    def __init__(self, *, project: str = "", credentials: Path | None = None, emulator: str = "") -> None:
        """`project`: of names that do not tell theirs. `credentials`: a key's file; None for those of the machine.

        `emulator`: its host and port, spoken to without TLS.
        """
        self._project = project
        self._credentials = credentials
        self._emulator = emulator
        self._connecting = asyncio.Lock()
        self._channel: grpc.aio.Channel | None = None
        self._subscriber: SubscriberAsyncClient | None = None
        self._publisher: PublisherAsyncClient | None = None

    async def close(self) -> None:
        """Close the connection."""
        if self._channel is not None:
            await self._channel.close()

    async def stream(self, requests: AsyncIterator[StreamingPullRequest], subscription: str) -> AsyncIterator[StreamingPullResponse]:
        """Pull from a subscription until it ends. Raises `TransientError`, `ConfigurationError`, `PermanentError`."""
        await self._connect()
        assert self._subscriber is not None  # noqa: S101
        path = self.path("subscriptions", subscription)
        metadata = (("x-goog-request-params", f"subscription={path}"),)
        try:
            call: Any = await self._subscriber.streaming_pull(requests, retry=None, timeout=None, metadata=metadata)
            async for response in call:
                yield response
        except FAULTS as error:
            raise translated(error, f"pull from {subscription}") from error

    async def acknowledge(self, subscription: str, ack_id: str) -> None:
        """Take a message off. Raises `LeaseLostError` when exactly-once delivery says that the id no longer counts."""
        if await self._settle("acknowledge", subscription, [ack_id]):
            raise LeaseLostError(f"Pub/Sub has delivered the message of {subscription} again, or it is gone")

    async def prolong(self, subscription: str, ack_ids: Sequence[str], *, seconds: int) -> frozenset[str]:
        """Give messages so long from now; 0 to give them back. Returns the ids that no longer count, where exactly-once delivery tells."""
        return await self._settle("modify_ack_deadline", subscription, ack_ids, ack_deadline_seconds=seconds)

    async def publish(self, topic: str, body: bytes, *, attributes: Mapping[str, str], ordering_key: str = "") -> str:
        """Publish, and return Pub/Sub's own id of the message. Raises `TransientError`, `ConfigurationError`, `PermanentError`."""
        await self._connect()
        assert self._publisher is not None  # noqa: S101
        message = PubsubMessage(data=body, attributes=dict(attributes), ordering_key=ordering_key)
        request = {"topic": self.path("topics", topic), "messages": [message]}
        try:
            answer = await self._publisher.publish(request=request, retry=None, timeout=_CALL_SECONDS)
        except FAULTS as error:
            raise translated(error, f"publish to {topic}") from error
        return str(answer.message_ids[0])

    def path(self, kind: str, name: str) -> str:
        """The full name of a subscription or topic. Raises `ConfigurationError`."""
        if name.startswith("projects/"):
            return name
        if not self._project:
            raise ConfigurationError(f"BRIDGE_PUBSUB_PROJECT is not set; set it, or name {name} whole: projects/PROJECT/{kind}/{name}")
        return f"projects/{self._project}/{kind}/{name}"

    @stamina.retry(on=TransientError, attempts=4, timeout=15.0, wait_initial=0.05, wait_max=2.0, wait_jitter=0.1)
    async def _settle(self, operation: str, subscription: str, ack_ids: Sequence[str], **values: int) -> frozenset[str]:
        """Returns the ids that no longer count. What could not be settled just now is tried again."""
        await self._connect()
        call = getattr(self._subscriber, operation)
        request = {"subscription": self.path("subscriptions", subscription), "ack_ids": list(ack_ids), **values}
        try:
            await call(request=request, retry=None, timeout=_CALL_SECONDS)
        except FAULTS as error:
            stale = stale_ids(error)
            if passing_ids(error):
                raise TransientError(f"Pub/Sub, {operation} on {subscription}: not settled yet") from error
            if stale:
                return stale
            raise translated(error, f"{operation} on {subscription}") from error
        return frozenset()

    async def _connect(self) -> None:
        async with self._connecting:
            if self._channel is not None:
                return
            self._channel = await self._new_channel()
            self._subscriber = SubscriberAsyncClient(transport=SubscriberGrpcAsyncIOTransport(channel=self._channel))
            self._publisher = PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=self._channel))

    async def _new_channel(self) -> grpc.aio.Channel:
        if self._emulator:
            return grpc.aio.insecure_channel(self._emulator, options=_OPTIONS)
        try:
            credentials = await asyncio.to_thread(self._load_credentials)
        except (*FAULTS, OSError, ValueError) as error:
            raise ConfigurationError(
                f"Google's credentials cannot be loaded ({error}); set BRIDGE_PUBSUB_CREDENTIALS to a key's file, "
                "give the machine a service account, or set PUBSUB_EMULATOR_HOST for an emulator"
            ) from error
        return SubscriberGrpcAsyncIOTransport.create_channel(_HOST, credentials=credentials, scopes=_SCOPES, options=_OPTIONS)

    def _load_credentials(self) -> Any:
        # Both may read files and ask the machine's metadata server.
        if self._credentials is not None:
            return google.auth.load_credentials_from_file(str(self._credentials), scopes=_SCOPES)[0]  # type: ignore[no-untyped-call]
        return google.auth.default(scopes=_SCOPES)[0]
