"""Puts sources and sinks together, as the settings name them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from bridge.aws.access import Aws
from bridge.settings import Settings
from bridge.sinks.port import Sink
from bridge.sinks.routed import RoutedSink
from bridge.sinks.sns import SnsSink
from bridge.sinks.sqs import SqsQueues, SqsSink
from bridge.sinks.sqs_errors import SqsErrorQueues
from bridge.sources.sqs import SqsSource
from bridge.systems.wsi import platform_messages
from bridge.transports.aws import depth as sqs_depth
from bridge.transports.aws import levels as sqs_levels
from bridge.transports.aws import open_aws, payloads
from bridge.transports.checks import check_one_source, check_pushes, check_slide_bucket
from bridge.transports.port import Broker, Transport
from bridge.transports.pubsub import open_pubsub, pubsub_broker, pubsub_sink
from bridge.transports.redis import open_redis, redis_list_sink, redis_sink, redis_source
from bridge.worker.burial import Burial

_log = structlog.get_logger()


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
    check_one_source(settings)
    check_pushes(settings)
    check_slide_bucket(settings)
    async with AsyncExitStack() as stack:
        sinks: dict[str, Sink] = {}
        broker: Broker | None = None
        if settings.redis_queues or settings.redis_url.get_secret_value():
            redis = await stack.enter_async_context(open_redis(settings))
            sinks |= {"redis": redis_sink(settings, redis), "redis-list": redis_list_sink(redis)}
            if settings.redis_queues:
                source = await stack.enter_async_context(redis_source(settings, redis))
                broker = Broker(source=source, sink=sinks["redis"], depth=source.depth, levels=source.levels, probe=redis.probe)
        if settings.pubsub_subscriptions or settings.pubsub_topic:
            pubsub = await stack.enter_async_context(open_pubsub(settings))
            sinks["pubsub"] = pubsub_sink(settings, pubsub)
            if settings.pubsub_subscriptions:
                broker = await stack.enter_async_context(pubsub_broker(settings, pubsub, sinks["pubsub"]))
        yield Brokers(sinks=sinks, broker=broker)


@asynccontextmanager
async def open_transport(settings: Settings, *, local: Transport) -> AsyncIterator[Transport]:
    """The transport that is set; `local` is the embedded one, and takes what is sent to `local:…`. Raises `ConfigurationError`."""
    async with open_aws(settings) as aws, open_brokers(settings) as brokers:
        # boto3 is loaded by the first call, so these cost nothing where AWS is not used.
        queues = SqsQueues(aws, payloads=payloads(aws, settings))
        sqs = SqsSink(queues, queue=settings.results_queue)
        schemes: Mapping[str, Sink] = {"local": local.sink, "sqs": sqs, "sns": SnsSink(aws), **brokers.sinks}
        if settings.sqs_queues:
            async with _sqs_source(settings, aws) as source:
                errors = SqsErrorQueues(queues, source=source.name, skips=platform_messages.is_of_another_type)
                yield Transport(
                    source=source,
                    sink=RoutedSink(sqs, schemes),
                    dead_letters=Burial(local.dead_letters, errors),
                    depth=partial(sqs_depth, aws, settings),
                    levels=partial(sqs_levels, aws, settings, source.freshness),
                )
            return
        place = brokers.broker or local
        sink = RoutedSink(place.sink, schemes)
        yield Transport(
            source=place.source, sink=sink, dead_letters=local.dead_letters, depth=place.depth, levels=place.levels, probe=place.probe
        )


@asynccontextmanager
async def _sqs_source(settings: Settings, aws: Aws) -> AsyncIterator[SqsSource]:
    if not settings.sqs_payload_bucket:
        reason = (
            "results and dead messages over 256 KiB are sent only where a queue's MaximumMessageSize allows it; bodies in S3 are refused"
        )
        _log.info("no_payload_bucket", setting="BRIDGE_SQS_PAYLOAD_BUCKET", reason=reason)
    source = SqsSource(
        aws,
        settings.sqs_queues,
        lease_seconds=settings.lease_seconds,
        payloads=payloads(aws, settings),
        urgent_in_a_row=settings.sqs_urgent_in_a_row,
    )
    try:
        yield source
    finally:
        await source.close()
