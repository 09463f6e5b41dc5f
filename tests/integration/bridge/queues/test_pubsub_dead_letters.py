"""Subscriptions with a dead-letter policy: Pub/Sub counts each return of a message, so that what merely waits is not returned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from bridge.job import Delivery
from bridge.sources.pubsub_pull import PubsubSource
from tests.support.moved_clock import MovedClock, moved_clock
from tests.support.patience import PATIENCE_SECONDS, until
from tests.support.servers.pubsub_pulling import PATIENT, pulling, until_waiting
from tests.support.servers.pubsub_server import PubsubServer, pubsub_server

# The fewest that Pub/Sub takes.
MOST_DELIVERIES = 5


@pytest.fixture
async def server() -> AsyncIterator[PubsubServer]:
    async with pubsub_server() as server:
        server.create("jobs", "jobs-sub", most_deliveries=MOST_DELIVERIES, ordered=True)
        yield server


@pytest.fixture
async def source(server: PubsubServer) -> AsyncIterator[PubsubSource]:
    async with pulling(server) as source:
        yield source


async def test_what_waits_again_and_again_is_not_taken_for_dead(server: PubsubServer, source: PubsubSource) -> None:
    server.publish("jobs", b"one")
    for number in range(2 * MOST_DELIVERIES):
        delivery = await _one(source)
        assert (b"one", number + 1) == (delivery.body, delivery.receive_count)
        await source.release(delivery, delay_seconds=0.05, tried=False)

    await source.acknowledge(await _one(source))
    assert (0, 1, []) == (server.left("jobs-sub"), server.deliveries("jobs-sub"), server.topics.get("projects/trial/topics/jobs-dead", []))


async def test_what_waits_long_keeps_its_lease_and_others_get_its_slot(server: PubsubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = moved_clock(monkeypatch)
    async with pulling(server, lease_seconds=60) as source:
        server.publish("jobs", b"waits")
        await source.release(await _one(source), delay_seconds=300)
        [level] = await source.levels()
        assert (0, 1) == (level.waiting, level.delayed)
        assert 1 == await source.depth(), "the bridge is not idle"
        server.publish("jobs", b"other")
        other = await _one(source)
        await source.acknowledge(other)
        await _renewed_again_and_again(server, clock, times=9)
        assert not await source.receive(limit=1, wait_seconds=0)
        await _renewed_again_and_again(server, clock, times=4)
        clock.sleep(30)

        assert (b"other", b"waits") == (other.body, (await _one(source)).body)
        assert 2 == server.deliveries("jobs-sub")


async def test_closing_gives_back_what_was_kept(server: PubsubServer) -> None:
    server.publish("jobs", b"one")
    async with pulling(server) as source:
        await source.release(await _one(source), delay_seconds=600)
    assert (0, 1) == (server.out("jobs-sub"), server.left("jobs-sub"))
    async with pulling(server) as source:
        assert b"one" == (await _one(source)).body


async def test_those_behind_one_that_waits_come_in_their_order_and_count_nothing(
    server: PubsubServer, source: PubsubSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = moved_clock(monkeypatch)
    for body in (b"1", b"2", b"3"):
        server.publish("jobs", body, ordering_key="a")
    first, *more = await source.receive(limit=3, wait_seconds=60)
    await source.release(first, delay_seconds=100)
    assert not [*more, *await source.receive(limit=3, wait_seconds=0)]
    clock.sleep(101)

    found = []
    for _ in range(3):
        found.append(await _one(source))
        await source.acknowledge(found[-1])
    assert ([b"1", b"2", b"3"], 3) == ([delivery.body for delivery in found], server.deliveries("jobs-sub"))


async def test_a_message_that_was_let_go_of_does_not_hold_up_those_with_its_key(
    server: PubsubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the ledger is out of reach: neither acknowledged nor given back."""
    clock = moved_clock(monkeypatch)
    async with pulling(server, lease_seconds=60) as source:
        for body in (b"1", b"2"):
            server.publish("jobs", body, ordering_key="a")
        await _one(source)
        clock.sleep(61)

        again = await _one(source)
        await source.acknowledge(again)
        assert (b"1", b"2") == (again.body, (await _one(source)).body)


@pytest.mark.parametrize(("deliveries", "left_to_others"), [(1, True), (2, True), (3, False)])
async def test_what_nobody_has_time_for_is_left_to_others_while_that_does_no_harm(
    server: PubsubServer, monkeypatch: pytest.MonkeyPatch, deliveries: int, left_to_others: bool
) -> None:
    server.create("rest", "rest-sub", most_deliveries=MOST_DELIVERIES)
    clock = moved_clock(monkeypatch)
    server.publish("rest", b"rest")
    [held] = server.subscriptions["projects/trial/subscriptions/rest-sub"].messages
    held.attempts = deliveries - 1
    async with pulling(server, "jobs-sub", "rest-sub", patience=replace(PATIENT, linger_seconds=100, hold_seconds=190)) as source:
        server.publish("jobs", b"urgent")
        assert b"urgent" == (await _one(source)).body
        await until_waiting(source, "rest-sub")
        clock.sleep(101)
        await until(lambda: not server.streams)
        before = held.deadline
        await _passes(clock, 480, lambda: server.out("rest-sub") == 0 if left_to_others else held.deadline != before)
        assert (0 if left_to_others else 1) == server.out("rest-sub")


async def test_what_was_kept_here_however_often_is_left_to_others_by_what_pubsub_has_counted(
    server: PubsubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = moved_clock(monkeypatch)
    server.publish("jobs", b"one")
    [held] = server.subscriptions["projects/trial/subscriptions/jobs-sub"].messages
    async with pulling(server, patience=replace(PATIENT, linger_seconds=100, hold_seconds=190)) as source:
        for _ in range(MOST_DELIVERIES):
            await source.release(await _one(source), delay_seconds=0.01, tried=False)
        await until_waiting(source, "jobs-sub")
        clock.sleep(101)
        await until(lambda: not server.streams)
        await _passes(clock, 480, lambda: server.out("jobs-sub") == 0)
        assert 1 == held.attempts


async def test_what_waits_and_is_delivered_again_takes_no_more_places(server: PubsubServer) -> None:
    server.create("rest", "rest-sub", most_deliveries=MOST_DELIVERIES)
    async with pulling(server, "jobs-sub", "rest-sub") as source:
        for number in range(12):
            server.publish("rest", str(number).encode())
        server.publish("jobs", b"urgent")
        assert [b"urgent"] == [delivery.body for delivery in await source.receive(limit=3, wait_seconds=PATIENCE_SECONDS)]
        for times in (1, 2, 3):
            await until(lambda: server.deliveries("rest-sub") == 3 * times)  # noqa: B023
            if times < 3:
                server.redeliver("rest-sub")

        assert 3 == len(await source.receive(limit=3, wait_seconds=PATIENCE_SECONDS))
        await asyncio.sleep(0.2)
        assert 3 == server.out("rest-sub")


async def _renewed_again_and_again(server: PubsubServer, clock: MovedClock, *, times: int) -> None:
    """At a third of a lease of 60 s."""
    [held] = server.subscriptions["projects/trial/subscriptions/jobs-sub"].messages
    for _ in range(times):
        before = held.deadline
        clock.sleep(21)
        await until(lambda: held.deadline > before)  # noqa: B023


async def _passes(clock: MovedClock, seconds: int, true: Callable[[], object]) -> None:
    """So many seconds, no lease's whole, in steps until it is so: what sleeps may have begun to at any of them."""
    for _ in range(0, seconds, 20):
        clock.sleep(20)
        await asyncio.sleep(0.02)
        if true():
            return
    await until(true)


async def _one(source: PubsubSource) -> Delivery:
    [delivery] = await source.receive(limit=1, wait_seconds=PATIENCE_SECONDS)
    return delivery
