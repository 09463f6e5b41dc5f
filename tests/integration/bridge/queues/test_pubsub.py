"""What the subscriptions and topics of Pub/Sub do beside what every source and sink does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest

from bridge.errors import ConfigurationError, PermanentError, TransientError
from bridge.google import streams
from bridge.google.access import PubsubAccess
from bridge.job import Message
from bridge.sinks.pubsub import PubsubSink
from bridge.sources.pubsub_pull import PubsubSource
from tests.support.moved_clock import moved_clock
from tests.support.patience import PATIENCE_SECONDS, until
from tests.support.servers.pubsub_pulling import PATIENT, pulling, until_waiting
from tests.support.servers.pubsub_server import PubsubServer, pubsub_server


@pytest.fixture
async def server() -> AsyncIterator[PubsubServer]:
    async with pubsub_server() as server:
        server.create("jobs", "jobs-sub")
        yield server


async def test_no_more_is_out_than_was_asked_for_and_the_stream_stays_open(server: PubsubServer) -> None:
    for number in range(6):
        server.publish("jobs", str(number).encode())
    async with pulling(server) as source:
        found = list(await source.receive(limit=2, wait_seconds=60))
        await asyncio.sleep(0.2)
        assert 2 == server.out("jobs-sub")
        bodies = [delivery.body for delivery in found]
        for _ in range(4):
            await source.acknowledge(found.pop(0))
            found += await source.receive(limit=1, wait_seconds=60)
            bodies.append(found[-1].body)
            assert 2 == server.out("jobs-sub")

        assert ([str(number).encode() for number in range(6)], 1) == (bodies, server.opened)


async def test_a_stream_that_falls_silent_is_opened_anew(server: PubsubServer) -> None:
    # A pause of the machine is a silence as well: a slow one gets more time.
    for silence_seconds in (0.4, 1.5, 5.0, 15.0):
        # What is on its way when a stream ends comes again after this lease.
        async with pulling(server, lease_seconds=10, patience=replace(PATIENT, silence_seconds=silence_seconds)) as source:
            assert not await source.receive(limit=1, wait_seconds=1.5 * silence_seconds)
            opened = server.opened
            for _ in range(2):
                assert not await source.receive(limit=1, wait_seconds=0.75 * silence_seconds)
            if server.opened > opened:
                continue
            server.fall_silent()
            server.publish("jobs", b"one")

            assert [b"one"] == [delivery.body for delivery in await source.receive(limit=1, wait_seconds=60)]
            assert server.opened > opened
            return
    raise AssertionError("a stream that only has nothing to give shows signs of life")


async def test_streams_end_while_nobody_receives(server: PubsubServer) -> None:
    """A worker with no free slot takes nothing away from the others."""
    async with pulling(server, patience=replace(PATIENT, linger_seconds=0.1)) as source:
        receiving = asyncio.create_task(source.receive(limit=1, wait_seconds=3600))
        await until(lambda: server.streams)
        receiving.cancel()
        await until(lambda: not server.streams)
        server.publish("jobs", b"one")
        await asyncio.sleep(0.1)
        assert (0, []) == (server.out("jobs-sub"), server.streams)

        assert 1 == len(await source.receive(limit=1, wait_seconds=60))


async def test_what_waits_for_a_receiver_keeps_its_lease(server: PubsubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.create("rest", "rest-sub")
    clock = moved_clock(monkeypatch)
    async with pulling(server, "jobs-sub", "rest-sub", lease_seconds=60) as source:
        server.publish("jobs", b"urgent")
        [urgent] = await source.receive(limit=1, wait_seconds=60)
        await source.acknowledge(urgent)
        server.publish("rest", b"rest")
        await until_waiting(source, "rest-sub")
        [held] = server.subscriptions["projects/trial/subscriptions/rest-sub"].messages
        for _ in range(4):
            before = held.deadline
            clock.sleep(21)
            await until(lambda: held.deadline > before)  # noqa: B023

        [rest] = await source.receive(limit=1, wait_seconds=60)
        assert (b"urgent", b"rest", 1) == (urgent.body, rest.body, rest.receive_count)


async def test_what_waits_too_long_is_left_to_others(server: PubsubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = moved_clock(monkeypatch)
    async with pulling(server, "jobs-sub", "rest-sub", patience=replace(PATIENT, linger_seconds=100, hold_seconds=190)) as source:
        await _receive_one_while_another_waits(server, source)
        clock.sleep(101)
        await until(lambda: not server.streams)
        assert 1 == server.out("rest-sub"), "it is held for the next who asks"
        clock.sleep(100)  # a third of its lease has passed, and not the whole
        await until(lambda: not server.out("rest-sub"))

        assert 1 == server.left("rest-sub")


async def test_closing_gives_back_what_waits(server: PubsubServer) -> None:
    async with pulling(server, "jobs-sub", "rest-sub") as source:
        await _receive_one_while_another_waits(server, source)
        await source.close()
        assert (1, 0, 1) == (server.out("jobs-sub"), server.out("rest-sub"), server.left("rest-sub"))


async def test_closing_ends_though_nobody_answers(server: PubsubServer) -> None:
    async with pulling(server, "jobs-sub", "rest-sub", patience=replace(PATIENT, close_seconds=0.1)) as source:
        await _receive_one_while_another_waits(server, source)
        server.outage = grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(source.close(), 60)


async def _receive_one_while_another_waits(server: PubsubServer, source: PubsubSource) -> None:
    """Of `jobs-sub` and of `rest-sub`."""
    server.create("rest", "rest-sub")
    server.publish("jobs", b"urgent")
    [urgent] = await source.receive(limit=1, wait_seconds=60)
    assert b"urgent" == urgent.body
    server.publish("rest", b"rest")
    await until_waiting(source, "rest-sub")


async def test_messages_of_one_key_come_one_after_the_other(server: PubsubServer) -> None:
    server.create("ordered", "ordered-sub", ordered=True, most_deliveries=100)
    for key, body in [("a", b"a1"), ("a", b"a2"), ("b", b"b1"), ("a", b"a3")]:
        server.publish("ordered", body, ordering_key=key)
    async with pulling(server, "ordered-sub") as source:
        first = await source.receive(limit=4, wait_seconds=60)
        assert [b"a1", b"b1"] == [delivery.body for delivery in first]
        assert not await source.receive(limit=4, wait_seconds=0)

        await source.release(first[0], delay_seconds=0)
        [again] = await source.receive(limit=4, wait_seconds=60)
        assert (b"a1", 2, "a") == (again.body, again.receive_count, again.attributes["OrderingKey"])
        for body in (b"a2", b"a3"):
            await source.acknowledge(again)
            [again] = await source.receive(limit=4, wait_seconds=60)
            assert body == again.body


async def test_an_acknowledgement_that_is_not_confirmed_is_tried_again(server: PubsubServer) -> None:
    server.publish("jobs", b"one")
    async with pulling(server) as source:
        [delivery] = await source.receive(limit=1, wait_seconds=60)
        server.failing_settlements = 2

        await source.acknowledge(delivery)

        assert 0 == server.left("jobs-sub")


async def test_a_subscription_without_exactly_once_delivery_is_served_too(server: PubsubServer) -> None:
    server.create("plain", "plain-sub", exactly_once=False)
    server.publish("plain", b"one")
    async with pulling(server, "plain-sub") as source:
        [delivery] = await source.receive(limit=1, wait_seconds=60)
        await source.renew(delivery, lease_seconds=60)
        await source.release(delivery, delay_seconds=0)
        [delivery] = await source.receive(limit=1, wait_seconds=60)
        await source.acknowledge(delivery)

        assert 0 == server.left("plain-sub")


async def test_an_outage_is_told_and_overcome(server: PubsubServer) -> None:
    async with pulling(server) as source:
        server.outage = grpc.StatusCode.UNAVAILABLE
        with pytest.raises(TransientError, match="an outage"):
            await source.receive(limit=1, wait_seconds=60)
        with pytest.raises(TransientError, match="an outage"):
            await source.probe()
        server.outage = None
        server.publish("jobs", b"one")

        async with asyncio.timeout(60):
            while True:
                try:
                    found = await source.receive(limit=1, wait_seconds=60)
                except TransientError:
                    continue
                break
        assert [b"one"] == [delivery.body for delivery in found]


async def test_a_stream_that_ends_at_once_is_not_opened_over_and_over(server: PubsubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_HONEST_LIFE_SECONDS", 3600.0)  # so that a pause of the machine is no life
    server.ends_at_once = True
    async with pulling(server) as source:
        with pytest.raises(TransientError, match="has ended the stream"):
            await source.receive(limit=1, wait_seconds=60)
        assert 1 == server.opened


async def test_one_subscription_that_fails_does_not_hold_up_the_others(server: PubsubServer) -> None:
    async with pulling(server, "other-sub", "jobs-sub") as source:
        with pytest.raises(ConfigurationError, match="other-sub"):
            await source.receive(limit=1, wait_seconds=60)
        server.publish("jobs", b"one")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    found = await source.receive(limit=1, wait_seconds=60)
                except ConfigurationError:
                    continue
                break
        assert [b"one"] == [delivery.body for delivery in found]


async def test_it_is_not_idle_before_it_has_looked(server: PubsubServer) -> None:
    async with pulling(server) as source:
        assert 1 == await source.depth()


async def test_a_subscription_that_is_missing_is_named(server: PubsubServer) -> None:
    async with pulling(server, "other-sub") as source:
        with pytest.raises(ConfigurationError, match=r"other-sub.*does it exist"):
            await source.receive(limit=1, wait_seconds=60)


async def test_a_name_without_a_project_tells_what_to_set() -> None:
    with pytest.raises(ConfigurationError, match="BRIDGE_PUBSUB_PROJECT"):
        PubsubAccess().path("topics", "jobs")
    assert "projects/p/topics/jobs" == PubsubAccess().path("topics", "projects/p/topics/jobs")


async def test_a_lease_that_pubsub_does_not_give_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="BRIDGE_LEASE_SECONDS"):
        PubsubSource(PubsubAccess(), ["jobs-sub"], lease_seconds=3600)


def _message(**attributes: str) -> Message:
    return Message(message_id="id-1", job_key="job-1", type="completed", destination="", body=b"{}", attributes=attributes)


async def test_a_result_is_published_under_its_id_and_key(server: PubsubServer) -> None:
    server.create("results")
    access = PubsubAccess(project="trial", emulator=server.address)
    await PubsubSink(access).send(_message(OrderingKey="patient-1", kind="test"))
    await access.close()

    [sent] = server.topics["projects/trial/topics/results"]
    expected = {"MessageId": "id-1", "job_key": "job-1", "type": "completed", "kind": "test"}
    assert (expected, "patient-1", b"{}") == (dict(sent.attributes), sent.ordering_key, sent.data)


async def test_a_result_that_pubsub_does_not_take_is_refused_for_good(server: PubsubServer) -> None:
    access = PubsubAccess(project="trial", emulator=server.address)
    with pytest.raises(PermanentError, match="attributes"):
        await PubsubSink(access).send(_message(long="x" * 1025))
    with pytest.raises(ConfigurationError, match="nowhere"):
        await PubsubSink(access, topic="nowhere").send(_message())
    await access.close()
