"""Puts Pub/Sub and Redis together, as the settings name them. Each is loaded only where it is used."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.database.local_queue import LocalQueue
from bridge.errors import ConfigurationError
from bridge.job import Job
from bridge.ledger.port import DeadLetter
from bridge.settings import Settings
from bridge.sinks.port import Sink
from bridge.sources.port import Source

if TYPE_CHECKING:
    from bridge.google.access import PubsubAccess
    from bridge.redis.access import RedisAccess
    from bridge.sources.pubsub_push import PushInbox
    from bridge.sources.redis_list import RedisSource


@dataclass(frozen=True, kw_only=True)
class Broker:
    """A source and its sink."""

    source: Source
    sink: Sink
    # How many messages lie in the source's queues.
    depth: Callable[[], Awaitable[int]]


@dataclass(frozen=True, kw_only=True)
class Brokers:
    """What is set up beside AWS and the embedded queues."""

    # Takes what is sent to `pubsub:…` and `redis:…`, by scheme.
    sinks: dict[str, Sink]
    # Where jobs come from; None when that is elsewhere.
    broker: Broker | None


@asynccontextmanager
async def open_brokers(settings: Settings) -> AsyncIterator[Brokers]:
    """Set up what the settings name. Raises `ConfigurationError`."""
    _check_one_source(settings)
    _check_pushes(settings)
    async with AsyncExitStack() as stack:
        sinks: dict[str, Sink] = {}
        broker: Broker | None = None
        if settings.redis_queues or settings.redis_url.get_secret_value():
            redis = await stack.enter_async_context(_open_redis(settings))
            sinks["redis"] = _redis_sink(settings, redis)
            if settings.redis_queues:
                source = await stack.enter_async_context(_redis_source(settings, redis))
                broker = Broker(source=source, sink=sinks["redis"], depth=source.depth)
        if settings.pubsub_subscriptions or settings.pubsub_topic:
            pubsub = await stack.enter_async_context(_open_pubsub(settings))
            sinks["pubsub"] = _pubsub_sink(settings, pubsub)
            if settings.pubsub_subscriptions:
                broker = await stack.enter_async_context(_pubsub_broker(settings, pubsub, sinks["pubsub"]))
        yield Brokers(sinks=sinks, broker=broker)


async def send_to_broker(settings: Settings, job: Job, message: bytes) -> bool:
    """Send a message that asks for a job to the source that is set, if it is one of these; false when it is not."""
    if settings.redis_queues:
        await _send_to_redis(settings, settings.redis_queues[0 if job.priority <= 0 else -1], job.key, message)
    elif settings.pubsub_subscriptions:
        await _publish(settings, message, {"job_key": job.key})
    else:
        return False
    return True


async def resend_to_broker(settings: Settings, letter: DeadLetter) -> bool:
    """Send the bytes of a dead letter to where they came from; false when that is none of these."""
    if letter.source == "redis" and letter.queue in settings.redis_queues:
        # Under an id of its own: the old message may still be on its way off the queue.
        own = f"{letter.message_id}.{secrets.token_hex(4)}"
        await _send_to_redis(settings, letter.queue, own, letter.body, dict(letter.attributes))
    elif letter.source == "pubsub" and letter.queue in settings.pubsub_subscriptions:
        await _publish(settings, letter.body, dict(letter.attributes))
    else:
        return False
    return True


def push_inbox(settings: Settings, queue: LocalQueue) -> PushInbox | None:
    """What takes Pub/Sub's pushes; None when none are expected. Raises `ConfigurationError`."""
    if not settings.pubsub_push_audience:
        return None
    _check_pushes(settings)
    _check_installed("google.auth", "gcp", "BRIDGE_PUBSUB_PUSH_AUDIENCE")
    from bridge.google.tokens import TokenVerifier
    from bridge.sources.pubsub_push import PushInbox

    verifier = TokenVerifier(audience=settings.pubsub_push_audience, account=settings.pubsub_push_account)
    return PushInbox(queue, verifier, limit=settings.pubsub_push_limit)


def _check_one_source(settings: Settings) -> None:
    named = [name for name in ("sqs_queues", "redis_queues", "pubsub_subscriptions", "pubsub_push_audience") if getattr(settings, name)]
    if len(named) > 1:
        variables = " and ".join(f"BRIDGE_{name.upper()}" for name in named)
        raise ConfigurationError(f"{variables} are both set, but a bridge takes jobs from one place; unset one, or start a bridge for each")


def _check_pushes(settings: Settings) -> None:
    if settings.pubsub_push_audience and not settings.pubsub_push_account:
        raise ConfigurationError(
            "BRIDGE_PUBSUB_PUSH_ACCOUNT is not set; set it to the service account of the push subscription (its OIDC token's), "
            "or unset BRIDGE_PUBSUB_PUSH_AUDIENCE"
        )
    if settings.pubsub_push_audience and not settings.http:
        raise ConfigurationError(
            "BRIDGE_HTTP is off, but Pub/Sub is to push there; set it to an address, or unset BRIDGE_PUBSUB_PUSH_AUDIENCE"
        )


def _check_installed(module: str, extra: str, variable: str) -> None:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigurationError(f"{variable} is set, but what it needs is not installed; install lamina[{extra}], or unset it")


@asynccontextmanager
async def _open_redis(settings: Settings) -> AsyncIterator[RedisAccess]:
    _check_installed("redis", "redis", "BRIDGE_REDIS_QUEUES or BRIDGE_REDIS_URL")
    from bridge.redis.access import RedisAccess

    access = RedisAccess(settings.redis_url.get_secret_value() or "redis://127.0.0.1:6379/0", tls_ca=settings.redis_tls_ca)
    try:
        yield access
    finally:
        await access.close()


def _redis_sink(settings: Settings, access: RedisAccess) -> Sink:
    from bridge.sinks.redis_channel import RedisSink

    return RedisSink(access, channel=settings.results_queue, key=settings.redis_result_key, keep_seconds=settings.redis_result_keep_seconds)


@asynccontextmanager
async def _redis_source(settings: Settings, access: RedisAccess) -> AsyncIterator[RedisSource]:
    from bridge.sources.redis_list import ListKeys, RedisSource

    source = RedisSource(
        access,
        [ListKeys.of(queue) for queue in settings.redis_queues],
        lease_seconds=settings.lease_seconds,
        urgent_in_a_row=settings.redis_urgent_in_a_row,
        adopt_seconds=settings.redis_adopt_seconds,
    )
    try:
        yield source
    finally:
        await source.close()


async def _send_to_redis(settings: Settings, queue: str, message_id: str, body: bytes, attributes: dict[str, str] | None = None) -> None:
    async with _open_redis(settings) as access, _redis_source(settings, access) as source:
        await source.send(message_id, body, attributes=attributes, queue=queue)


@asynccontextmanager
async def _open_pubsub(settings: Settings) -> AsyncIterator[PubsubAccess]:
    _check_installed("google.pubsub_v1", "gcp", "BRIDGE_PUBSUB_SUBSCRIPTIONS or BRIDGE_PUBSUB_TOPIC")
    from bridge.google.access import PubsubAccess

    access = PubsubAccess(project=settings.pubsub_project, credentials=settings.pubsub_credentials, emulator=settings.pubsub_emulator)
    try:
        yield access
    finally:
        await access.close()


def _pubsub_sink(settings: Settings, access: PubsubAccess) -> Sink:
    from bridge.sinks.pubsub import PubsubSink

    return PubsubSink(access, topic=settings.results_queue)


@asynccontextmanager
async def _pubsub_broker(settings: Settings, access: PubsubAccess, sink: Sink) -> AsyncIterator[Broker]:
    from bridge.google.intake import Patience
    from bridge.sources.pubsub_pull import PubsubSource

    source = PubsubSource(
        access,
        settings.pubsub_subscriptions,
        lease_seconds=settings.lease_seconds,
        urgent_in_a_row=settings.pubsub_urgent_in_a_row,
        patience=Patience(silence_seconds=settings.pubsub_silence_seconds),
    )
    try:
        yield Broker(source=source, sink=sink, depth=source.depth)
    finally:
        await source.close()


async def _publish(settings: Settings, body: bytes, attributes: dict[str, str]) -> None:
    if not settings.pubsub_topic:
        raise ConfigurationError(
            "BRIDGE_PUBSUB_TOPIC is not set; set it to the topic of the first subscription, for messages to be sent to"
        )
    async with _open_pubsub(settings) as access:
        ordering_key = attributes.pop("OrderingKey", "")
        await access.publish(settings.pubsub_topic, body, attributes=attributes, ordering_key=ordering_key)
