"""What every source does."""

from __future__ import annotations

import asyncio
import contextlib
import math
import pkgutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import groupby

import pytest

import bridge.sources
from bridge.errors import LeaseLostError
from bridge.job import Delivery
from bridge.sources.port import Source
from tests.support.bridge.sources.kinds import SOURCES
from tests.support.bridge.sources.port import IN_A_ROW, LEASE_SECONDS, SourceAtHand
from tests.support.bridge.sources.pubsub_pull import EMULATED

LONGER_THAN_A_LEASE = LEASE_SECONDS * 1.3
# What is waited for ends the wait; only a failure takes so long.
LONGER_THAN_ANY_HICCUP = 40.0
# Half of what a source of several queues gives each of them to bring what it has.
A_STALL = 0.15
_ROUNDS = 8
# What was lost on its way comes after 10 s; all else at once.
_ON_ITS_WAY = 5.0
# Modules beside the adapters.
NO_SOURCES = {"due_times", "freshness", "list_ages", "port", "turns"}
WITH_URGENCY = [*(name for name, kind in SOURCES.items() if kind.knows_urgency), EMULATED]


def test_every_source_of_the_bridge_is_in_the_list() -> None:
    adapters = {module.name for module in pkgutil.iter_modules(bridge.sources.__path__)} - NO_SOURCES

    assert adapters == {kind.adapter for kind in SOURCES.values()}


async def _one(source: Source, *, wait_seconds: float = LONGER_THAN_ANY_HICCUP) -> Delivery:
    deliveries = await source.receive(limit=1, wait_seconds=wait_seconds)
    assert len(deliveries) == 1
    return deliveries[0]


async def _one_of_either(at_hand: SourceAtHand) -> Delivery:
    """What comes again may come to whoever asks."""
    return (await _first_of(at_hand.source, at_hand.rival))[1]


@contextlib.asynccontextmanager
async def _stalls() -> AsyncIterator[list[float]]:
    """By how many seconds this process ran late while the block lasted, again and again."""
    late: list[float] = []

    async def watch() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.02)
            late.append(time.monotonic() - began - 0.02)

    watching = asyncio.create_task(watch())
    try:
        yield late
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _next_holder(at_hand: SourceAtHand) -> tuple[Source, Delivery]:
    """The rival with the message that came again; where it may come to either, whoever has it."""
    if not at_hand.comes_to_either:
        return at_hand.rival, await _one(at_hand.rival)
    return await _first_of(at_hand.source, at_hand.rival)


async def _first_of(*sources: Source) -> tuple[Source, Delivery]:
    """Whoever gets a message first, and the message."""
    receiving = {asyncio.ensure_future(_one(source)): source for source in sources}
    done, rest = await asyncio.wait(receiving, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    first = done.pop()
    return receiving[first], first.result()


async def test_a_delivery_carries_the_message_whole(source_at_hand: SourceAtHand) -> None:
    await source_at_hand.send(b"\x00\xffbytes", 0)

    delivery = await _one(source_at_hand.source)

    assert (b"\x00\xffbytes", "test", 1) == (delivery.body, delivery.attributes["kind"], delivery.receive_count)
    assert source_at_hand.source.name == delivery.source
    assert delivery.message_id
    assert delivery.receipt


async def test_an_empty_queue_gives_nothing_after_the_wait(source_at_hand: SourceAtHand) -> None:
    started = time.monotonic()

    assert not await source_at_hand.source.receive(limit=5, wait_seconds=0.3)
    assert 0.25 <= time.monotonic() - started


async def test_a_waiting_receiver_gets_a_message_that_comes_later(source_at_hand: SourceAtHand) -> None:
    receiving = asyncio.create_task(_one(source_at_hand.source))
    await asyncio.sleep(0.2)
    await source_at_hand.send(b"late", 0)

    assert (await receiving).body == b"late"


async def test_no_more_than_the_limit_is_delivered(source_at_hand: SourceAtHand) -> None:
    for number in range(5):
        await source_at_hand.send(str(number).encode(), 0)

    counts: list[int] = []
    while sum(counts) < 5:
        counts.append(len(await source_at_hand.source.receive(limit=3, wait_seconds=LONGER_THAN_ANY_HICCUP)))
    assert max(counts) <= 3


async def test_a_leased_message_is_hidden_from_rivals(source_at_hand: SourceAtHand) -> None:
    await source_at_hand.send(b"one", 0)
    await _one(source_at_hand.source)

    assert not await source_at_hand.rival.receive(limit=1, wait_seconds=0)


async def test_rivals_never_get_the_same_message(source_at_hand: SourceAtHand) -> None:
    for number in range(20):
        await source_at_hand.send(str(number).encode(), 0)
    receivers = [source_at_hand.source, source_at_hand.rival] * 10
    found: list[Delivery] = []

    async with asyncio.timeout(LONGER_THAN_ANY_HICCUP):
        while len({delivery.body for delivery in found}) < 20:
            for deliveries in await asyncio.gather(*(source.receive(limit=2, wait_seconds=0) for source in receivers)):
                found.extend(deliveries)

    # What comes again did so because a slow machine let its lease run out.
    bodies = [delivery.body for delivery in found if delivery.receive_count == 1]
    assert len(bodies) == len(set(bodies)) == 20


@pytest.mark.short_leases
async def test_a_lease_that_runs_out_brings_the_message_again_under_a_new_receipt(source_at_hand: SourceAtHand) -> None:
    await source_at_hand.send(b"one", 0)
    first = await _one(source_at_hand.source)

    second = await _one_of_either(source_at_hand)

    assert (first.message_id, first.body, 2) == (second.message_id, second.body, second.receive_count)
    assert first.receipt != second.receipt


@pytest.mark.short_leases
async def test_a_renewed_lease_keeps_the_message(source_at_hand: SourceAtHand) -> None:
    await source_at_hand.send(b"one", 0)
    while True:
        delivery = await _one(source_at_hand.source)
        # A slow machine lets it run out before.
        with contextlib.suppress(LeaseLostError):
            await source_at_hand.source.renew(delivery, lease_seconds=60)
            break
    await asyncio.sleep(LONGER_THAN_A_LEASE)

    assert not await source_at_hand.rival.receive(limit=1, wait_seconds=0)


@pytest.mark.short_leases
async def test_a_stale_receipt_cannot_be_renewed(source_at_hand: SourceAtHand) -> None:
    await source_at_hand.send(b"one", 0)
    stale = await _one(source_at_hand.source)
    await _next_holder(source_at_hand)

    with pytest.raises(LeaseLostError):
        await source_at_hand.source.renew(stale, lease_seconds=10)


@pytest.mark.short_leases
async def test_a_stale_receipt_neither_acknowledges_nor_releases(source_at_hand: SourceAtHand) -> None:
    await source_at_hand.send(b"one", 0)
    stale = await _one(source_at_hand.source)
    while True:
        holder, fresh = await _next_holder(source_at_hand)
        with contextlib.suppress(LeaseLostError):
            await holder.renew(fresh, lease_seconds=60)
            break

    await source_at_hand.source.release(stale, delay_seconds=0)
    await source_at_hand.source.acknowledge(stale)

    assert not await source_at_hand.source.receive(limit=1, wait_seconds=0), "the holder of the newer receipt has it still"
    await holder.release(fresh, delay_seconds=0)
    again = await (_one_of_either(source_at_hand) if source_at_hand.comes_to_either else _one(source_at_hand.source))
    assert again.body == b"one"


@pytest.mark.short_leases
async def test_an_acknowledged_message_never_comes_again(source_at_hand: SourceAtHand) -> None:
    in_time = False
    # Where a slow machine lets its lease run out before, it may come again.
    while not in_time:
        await source_at_hand.send(b"one", 0)
        began = time.monotonic()
        delivery = await _one(source_at_hand.source)
        await source_at_hand.source.acknowledge(delivery)
        await source_at_hand.source.acknowledge(delivery)  # harmless
        in_time = time.monotonic() - began < LEASE_SECONDS / 2
        while not in_time and (late := await source_at_hand.source.receive(limit=1, wait_seconds=LONGER_THAN_A_LEASE)):
            await source_at_hand.source.acknowledge(late[0])

    assert not await source_at_hand.rival.receive(limit=1, wait_seconds=LONGER_THAN_A_LEASE)


async def test_a_released_message_comes_again_at_once(source_at_hand: SourceAtHand) -> None:
    await source_at_hand.send(b"one", 0)
    delivery = await _one(source_at_hand.source)
    await source_at_hand.source.renew(delivery, lease_seconds=60)
    await source_at_hand.source.release(delivery, delay_seconds=0)

    assert (await _one_of_either(source_at_hand)).receive_count == 2


async def test_a_message_released_with_a_delay_comes_after_it(source_at_hand: SourceAtHand) -> None:
    await source_at_hand.send(b"one", 0)
    delivery = await _one(source_at_hand.source)
    started = time.monotonic()
    await source_at_hand.source.release(delivery, delay_seconds=1)

    await _one_of_either(source_at_hand)
    assert time.monotonic() - started >= 0.9


@pytest.mark.short_leases
@pytest.mark.parametrize("source_at_hand", WITH_URGENCY, indirect=True)
async def test_urgent_messages_go_first_and_equals_in_order(source_at_hand: SourceAtHand) -> None:
    sent = [("b1", 5), ("c", 9), ("a", 0), ("b2", 5)]

    await _until(lambda found: found == ["a", "b1", "b2", "c"], source_at_hand, sent)


@pytest.mark.short_leases
@pytest.mark.parametrize("source_at_hand", WITH_URGENCY, indirect=True)
async def test_urgent_messages_go_first_and_starve_nobody(source_at_hand: SourceAtHand) -> None:
    sent = [(f"{priority} {number}", priority) for priority, count in ((0, 14), (5, 4), (9, 1)) for number in range(count)]

    def is_fair(bodies: list[str]) -> bool:
        found = [int(body.split()[0]) for body in bodies]
        # The most urgent go first, and after some of them it is the next one's turn.
        urgent_first = [0] * IN_A_ROW + [5] == found[: IN_A_ROW + 1]
        longest = max(len(list(run)) for priority, run in groupby(found[: found.index(9)]) if priority == 0)
        # The least urgent does not wait until nothing else is left.
        return urgent_first and longest == IN_A_ROW and 9 in found[: len(found) - found[::-1].index(0)]

    await _until(is_fair, source_at_hand, sent)


async def _until(is_right: Callable[[list[str]], bool], at_hand: SourceAtHand, sent: Sequence[tuple[str, int]]) -> None:
    """Send and receive all; again where the machine was stalled just then, and only there: what is less urgent may then arrive first.

    So it may where a message was on its way when a stream of Pub/Sub ended: it comes again after its first lease.
    """
    for number in range(_ROUNDS):
        found: list[str] = []
        longest = 0.0
        async with _stalls() as stalls:
            for body, priority in sent:
                await at_hand.send(f"{number} {body}".encode(), priority)
            while {body for body, _ in sent} - set(found):
                began = time.monotonic()
                delivery = await _one(at_hand.source)
                longest = max(longest, time.monotonic() - began)
                await at_hand.source.acknowledge(delivery)
                of, _, body = delivery.body.decode().partition(" ")
                found += [body] if of == str(number) else []
        if is_right(found):
            return
        was_held_up = max(stalls, default=0.0) >= A_STALL or longest >= _ON_ITS_WAY
        assert was_held_up, f"in this order: {found}"
    pytest.fail(f"the machine was stalled {_ROUNDS} times; in this order last: {found}")


async def test_a_source_tells_how_much_waits_and_how_old_it_is(source_at_hand: SourceAtHand) -> None:
    assert [] == [level for level in await source_at_hand.levels() if level.waiting]
    before = time.time()
    for number in range(3):
        await source_at_hand.send(str(number).encode(), 0)
    delivery = await _one(source_at_hand.source)
    await source_at_hand.source.renew(delivery, lease_seconds=30)

    level = (await source_at_hand.levels())[0]

    if source_at_hand.source.name == "pubsub":
        # Only what it has sent is known: what was asked for, or by the emulator at times what comes with it.
        assert level.waiting in {0, 2}
        assert math.isnan(level.leased)
    else:
        assert (level.waiting, level.leased) == (2, 1)
    assert 0 <= level.oldest_seconds <= time.time() - before + 1.5  # SQS tells times in whole milliseconds, the emulator in seconds
