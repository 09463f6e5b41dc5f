"""The streams of Pub/Sub while messages are given back for long: for the server they are out until then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bridge.job import Delivery
from bridge.sources.pubsub_pull import PubsubSource
from tests.support.moved_clock import moved_clock
from tests.support.patience import until
from tests.support.servers.pubsub_pulling import LEASE_SECONDS, pulling
from tests.support.servers.pubsub_server import PubsubServer, pubsub_server


@pytest.fixture
async def server() -> AsyncIterator[PubsubServer]:
    async with pubsub_server() as server:
        server.create("jobs", "jobs-sub")
        yield server


@pytest.fixture
async def source(server: PubsubServer) -> AsyncIterator[PubsubSource]:
    async with pulling(server) as source:
        yield source


async def test_streams_do_not_pile_up_while_message_after_message_is_given_back_for_long(
    server: PubsubServer, source: PubsubSource
) -> None:
    for number in range(12):
        server.publish("jobs", str(number).encode())
        [delivery] = await source.receive(limit=1, wait_seconds=60)
        await source.release(delivery, delay_seconds=300)

    await until(lambda: len(server.streams) <= 1)


async def test_once_delays_are_over_no_more_is_out_than_was_asked_for(
    server: PubsubServer, source: PubsubSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = moved_clock(monkeypatch)
    _publish(server, 3)
    first, second, third = await _receive(source, 3)
    await source.release(first, delay_seconds=300)
    await source.release(second, delay_seconds=300)
    _publish(server, 2)
    # One is worked on, and the places of two are held.
    for delivery in [third, *await _receive(source, 2)]:
        await source.acknowledge(delivery)

    clock.sleep(301)
    for delivery in await _receive(source, 2):
        await source.acknowledge(delivery)
    clock.sleep(2)
    await source.receive(limit=3, wait_seconds=0)
    _publish(server, 5)
    await _receive(source, 3)
    await asyncio.sleep(0.2)
    assert (3, 5) == (server.out("jobs-sub"), server.left("jobs-sub"))


@pytest.mark.parametrize("delay_seconds", [300, 900])
async def test_beside_long_jobs_no_more_is_out_than_was_asked_for_once_delays_are_over(
    server: PubsubServer, source: PubsubSource, monkeypatch: pytest.MonkeyPatch, delay_seconds: float
) -> None:
    clock = moved_clock(monkeypatch)
    _publish(server, 3)
    _long, *others = await _receive(source, 3)
    for delivery in others:
        await source.release(delivery, delay_seconds=delay_seconds)
    _publish(server, 2)
    # Another long one, and one that ends: of three slots one is free.
    _another, ended = await _receive(source, 2)
    await source.acknowledge(ended)
    await source.receive(limit=1, wait_seconds=0)

    clock.sleep(301)
    for delivery in (_long, _another):
        await source.renew(delivery, lease_seconds=LEASE_SECONDS)
    clock.sleep(300)  # Pub/Sub takes no longer delay
    _publish(server, 5)
    await _receive(source, 1)
    await asyncio.sleep(0.2)
    assert (3, 9) == (server.out("jobs-sub"), server.left("jobs-sub"))


def _publish(server: PubsubServer, count: int) -> None:
    for number in range(count):
        server.publish("jobs", str(number).encode())


async def _receive(source: PubsubSource, count: int) -> list[Delivery]:
    """As a worker does: it asks for as many as it has slots for."""
    found: list[Delivery] = []
    while len(found) < count:
        found += await source.receive(limit=count - len(found), wait_seconds=60)
    return found
