"""The relay on a real outbox, with sinks that fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bridge.errors import PermanentError, TransientError
from bridge.job import Event, Job, Message, Outcome
from bridge.ledger.port import Claim
from bridge.relay import Relay, RelayPolicy
from bridge.settings import load
from bridge.steps import StepTaken
from bridge.store import Store, open_store

# Leases outlast whatever pause a machine makes: else a message would be sent once more, as it should.
QUICK = RelayPolicy(poll_seconds=0.05, lease_seconds=3600, send_seconds=0.3, backoff_seconds=0.05)


@dataclass
class Sink:
    """Keeps what it is sent, unless `refuse` raises."""

    refuse: Callable[[Message], Awaitable[None]]
    sent: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        await self.refuse(message)
        self.sent.append(message)


class Silent:
    def on_step(self, taken: StepTaken) -> None:
        pass


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(load(database=str(tmp_path / "bridge.db"))) as opened:
        yield opened


async def commit(store: Store, key: str) -> None:
    claim = await store.ledger.claim(Job(key=key, system="trial", request={}), worker="test", lease_seconds=60)
    assert isinstance(claim, Claim)
    event = Event(type="completed", destination="", body=key.encode())
    await store.ledger.finish(claim, Outcome(succeeded=True, result={}, events=(event,)))


async def accept(_message: Message) -> None:
    return


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_a_relay_that_is_woken_sends_at_once(store: Store) -> None:
    sink = Sink(accept)
    relay = Relay(store.outbox, sink, Silent(), RelayPolicy(poll_seconds=600))
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    await asyncio.sleep(0.2)

    await commit(store, "job")
    relay.wake()
    async with asyncio.timeout(50):
        while not sink.sent:
            await asyncio.sleep(0.01)

    stop.set()
    await asyncio.wait_for(running, 60)


async def test_what_is_due_is_sent_before_the_relay_stops(store: Store) -> None:
    sink = Sink(accept)
    for number in range(40):
        await commit(store, f"job-{number}")
    stop = asyncio.Event()
    stop.set()

    await Relay(store.outbox, sink, Silent(), QUICK).run(stop)

    assert [f"job-{number}" for number in range(40)] == sorted((message.job_key for message in sink.sent), key=lambda key: int(key[4:]))


@pytest.mark.parametrize("trouble", ["transient", "permanent", "silence", "mistake"])
async def test_a_message_that_cannot_be_sent_holds_up_no_other_and_is_tried_again(store: Store, trouble: str) -> None:
    tries = 0

    async def refuse(message: Message) -> None:
        nonlocal tries
        if message.job_key != "bad":
            return
        tries += 1
        if tries > 2:
            return
        if trouble == "silence":
            await asyncio.sleep(3600)
        raise {"transient": TransientError("busy"), "permanent": PermanentError("too big"), "mistake": KeyError("x")}[trouble]

    for key in ("bad", "good-1", "good-2"):
        await commit(store, key)
    sink = Sink(refuse)
    stop = asyncio.Event()
    running = asyncio.create_task(Relay(store.outbox, sink, Silent(), QUICK).run(stop))

    async def nothing_left() -> bool:
        return (await store.outbox.backlog()).depth == 0

    await until(nothing_left)
    stop.set()
    await asyncio.wait_for(running, 60)
    assert ["good-1", "good-2", "bad"] == [message.job_key for message in sink.sent]
    assert tries == 3


async def test_two_relays_send_each_message_once(store: Store) -> None:
    sink = Sink(accept)
    for number in range(50):
        await commit(store, f"job-{number}")
    stop = asyncio.Event()
    stop.set()

    await asyncio.gather(*(Relay(store.outbox, sink, Silent(), QUICK).run(stop) for _ in range(2)))

    assert 50 == len(sink.sent) == len({message.message_id for message in sink.sent})
