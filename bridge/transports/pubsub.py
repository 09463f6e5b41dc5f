"""Pub/Sub, as the settings name it. Google's clients are loaded only where they are used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bridge.database.local_queue import LocalQueue
from bridge.errors import ConfigurationError
from bridge.settings import Settings
from bridge.sinks.port import Sink
from bridge.transports.checks import check_installed, check_pushes
from bridge.transports.port import Broker

if TYPE_CHECKING:
    from bridge.google.access import PubsubAccess
    from bridge.sources.pubsub_push import PushInbox


@asynccontextmanager
async def open_pubsub(settings: Settings) -> AsyncIterator[PubsubAccess]:
    """Access to Pub/Sub, as it is set. Raises `ConfigurationError`."""
    check_installed("google.pubsub_v1", "gcp", "BRIDGE_PUBSUB_SUBSCRIPTIONS or BRIDGE_PUBSUB_TOPIC")
    from bridge.google.access import PubsubAccess

    access = PubsubAccess(project=settings.pubsub_project, credentials=settings.pubsub_credentials, emulator=settings.pubsub_emulator)
    try:
        yield access
    finally:
        await access.close()


def pubsub_sink(settings: Settings, access: PubsubAccess) -> Sink:
    """What publishes results."""
    from bridge.sinks.pubsub import PubsubSink

    return PubsubSink(access, topic=settings.results_queue)


@asynccontextmanager
async def pubsub_broker(settings: Settings, access: PubsubAccess, sink: Sink) -> AsyncIterator[Broker]:
    """The subscriptions that jobs come from."""
    from bridge.google.pulled import Patience
    from bridge.sources.pubsub_pull import PubsubSource

    source = PubsubSource(
        access,
        settings.pubsub_subscriptions,
        lease_seconds=settings.lease_seconds,
        urgent_in_a_row=settings.pubsub_urgent_in_a_row,
        patience=Patience(silence_seconds=settings.pubsub_silence_seconds),
    )
    try:
        yield Broker(source=source, sink=sink, depth=source.depth, levels=source.levels, probe=source.probe)
    finally:
        await source.close()


async def publish(settings: Settings, body: bytes, attributes: dict[str, str]) -> None:
    """Publish a message that asks for a job. Raises `ConfigurationError`."""
    if not settings.pubsub_topic:
        raise ConfigurationError(
            "BRIDGE_PUBSUB_TOPIC is not set; set it to the topic of the first subscription, for messages to be sent to"
        )
    async with open_pubsub(settings) as access:
        ordering_key = attributes.pop("OrderingKey", "")
        await access.publish(settings.pubsub_topic, body, attributes=attributes, ordering_key=ordering_key)


def push_inbox(settings: Settings, queue: LocalQueue) -> PushInbox | None:
    """What takes Pub/Sub's pushes; None when none are expected. Raises `ConfigurationError`."""
    if not settings.pubsub_push_audience:
        return None
    check_pushes(settings)
    check_installed("google.auth", "gcp", "BRIDGE_PUBSUB_PUSH_AUDIENCE")
    from bridge.google.tokens import TokenVerifier
    from bridge.sources.pubsub_push import PushInbox

    verifier = TokenVerifier(audience=settings.pubsub_push_audience, account=settings.pubsub_push_account)
    return PushInbox(queue, verifier, limit=settings.pubsub_push_limit)
