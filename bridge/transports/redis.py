"""Redis, as the settings name it. Its client is loaded only where it is used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import TYPE_CHECKING

from bridge.errors import ConfigurationError
from bridge.job import CORRELATION
from bridge.ledger.port import DeadLetter
from bridge.settings import Settings
from bridge.sinks.port import Sink
from bridge.transports.checks import check_installed

if TYPE_CHECKING:
    from bridge.redis.access import RedisAccess
    from bridge.sources.redis_list import ListKeys, RedisSource


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[RedisAccess]:
    """Access to Redis, as it is set. Raises `ConfigurationError`."""
    check_installed("redis", "redis", "BRIDGE_REDIS_QUEUES or BRIDGE_REDIS_URL")
    from bridge.redis.access import RedisAccess

    access = RedisAccess(settings.redis_url.get_secret_value() or "redis://127.0.0.1:6379/0", tls_ca=settings.redis_tls_ca)
    try:
        yield access
    finally:
        await access.close()


def redis_sink(settings: Settings, access: RedisAccess) -> Sink:
    """What stores and publishes results."""
    from bridge.sinks.redis_channel import RedisSink

    return RedisSink(access, channel=settings.results_queue, key=settings.redis_result_key, keep_seconds=settings.redis_result_keep_seconds)


def redis_list_sink(access: RedisAccess) -> Sink:
    """What adds to lists."""
    from bridge.sinks.redis_list import RedisListSink

    return RedisListSink(access)


@asynccontextmanager
async def redis_source(settings: Settings, access: RedisAccess) -> AsyncIterator[RedisSource]:
    """The lists that jobs come from."""
    from bridge.sources.redis_list import RedisSource

    source = RedisSource(
        access,
        _keys(settings),
        lease_seconds=settings.lease_seconds,
        urgent_in_a_row=settings.redis_urgent_in_a_row,
        adopt_seconds=settings.redis_adopt_seconds,
        look_seconds=settings.redis_look_seconds,
        lock_seconds=settings.redis_lock_seconds,
    )
    try:
        yield source
    finally:
        await source.close()


def _keys(settings: Settings) -> list[ListKeys]:
    from bridge.sources.redis_list import ListKeys

    try:
        return [ListKeys.of(queue, **settings.redis_keys.get(queue, {})) for queue in settings.redis_queues]
    except TypeError as error:
        names = ", ".join(field.name for field in fields(ListKeys) if field.name != "queue")
        raise ConfigurationError(f"BRIDGE_REDIS_KEYS names a key that a list has not; expected some of {names}") from error


async def resend_to_redis(settings: Settings, letter: DeadLetter, *, message_id: str) -> None:
    """Put a dead letter into its list again. What other programs ask for by an item alone goes as that item, and is the job that it was."""
    asked_by = letter.attributes.get(CORRELATION, "")
    if not (asked_by and letter.body == letter.message_id.encode()):
        await send_to_redis(settings, letter.queue, message_id, letter.body, dict(letter.attributes))
        return
    async with open_redis(settings) as access, redis_source(settings, access) as source:
        await source.enqueue(letter.message_id, queue=letter.queue, correlation=asked_by)


async def send_to_redis(settings: Settings, queue: str, message_id: str, body: bytes, attributes: dict[str, str] | None = None) -> None:
    """Put a message into a list."""
    async with open_redis(settings) as access, redis_source(settings, access) as source:
        await source.send(message_id, body, attributes=attributes, queue=queue)
