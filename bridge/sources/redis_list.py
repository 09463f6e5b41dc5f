"""Jobs from lists of Redis."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any
from uuid import uuid4

import structlog

from bridge.errors import BridgeError, ConfigurationError, LeaseLostError
from bridge.gathering import Gatherer
from bridge.job import Delivery
from bridge.redis.access import RedisAccess, Script
from bridge.sources.due_times import DueTimes
from bridge.sources.list_ages import ListAges
from bridge.sources.port import QueueLevel
from bridge.sources.turns import Turns

_log = structlog.get_logger()
_LUA = Path(__file__).parent / "lua"
_KINDS = _LUA / "before" / "kinds.lua"
# How often expired leases and due delays are looked for at most, in seconds.
_REAP_SECONDS = 0.02
# How often empty queues are looked at, in seconds: often while there is traffic. Later a new item wakes us, and what is due is known; only
# what others give back is not. A server that lets nobody wait is asked for new items.
_BUSY_POLL_SECONDS = 0.05
_IDLE_POLL_SECONDS = 2.5
_ASKING_POLL_SECONDS = 0.25
_IDLE_AFTER_SECONDS = 2.0
# How often leases are looked for that the server has evicted, where nobody looks for what other programs lost.
_LOOK_SECONDS = 60.0
# Items that are names, such as documents' ids, are known by themselves; others by their digest: ids are logged.
_NAME = re.compile(r"[A-Za-z0-9._:/+=-]{1,200}")
# More are asked for by another script.
_MOST_AT_ONCE = 100


@dataclass(frozen=True, kw_only=True)
class ListKeys:
    """The keys of one queue, in the order of the scripts. `of` derives them from the first."""

    # LIST of items, new ones at the right. An item is a message, or the name of one whose body lies in `bodies`.
    queue: str
    # SET of the items that are worked on.
    processing: str
    # ZSET: when the holder of an item has died, in ms by the server's clock.
    leases: str
    # ZSET: when an item may be tried again.
    delayed: str
    # HASH: how often an item was delivered, but for what was given back untried.
    deliveries: str
    # HASH: since when it is worked on, in ms.
    started: str
    # HASH: the receipt of who works on it.
    holders: str
    # HASH: its body, where the item is but a name.
    bodies: str
    # HASH: its attributes, a JSON object.
    attributes: str
    # HASH: an id for each time that an item is asked for, made where there is none; empty for no such ids.
    correlation: str = ""
    # What the names of locks begin with that other programs on the same list set and look for; empty for none.
    locks: str = ""
    # Another LIST of the same `locks` and `correlation`, where an equal item asks for the same: it goes when ours is taken; empty for none.
    twin: str = ""

    @classmethod
    def of(cls, queue: str, **others: str) -> ListKeys:
        """`queue:processing` and so on; `others` replaces some."""
        names = {field.name: f"{queue}:{field.name}" for field in fields(cls) if field.default is MISSING and field.name != "queue"}
        return cls(queue=queue, **{**names, **others})

    @property
    def in_order(self) -> tuple[str, ...]:
        """As the scripts take them. The list's own stands for what is not there: of an empty name nobody may have the right."""
        return tuple(getattr(self, field.name) or self.queue for field in fields(self))


class RedisSource:
    """Delivers the items of one list or several, the first of them before the others. Each claim, renewal and return is one script."""

    name = "redis"

    def __init__(
        self,
        access: RedisAccess,
        queues: Sequence[ListKeys],
        *,
        lease_seconds: float,
        urgent_in_a_row: int = 8,
        adopt_seconds: float = 0.0,
        look_seconds: float = 0.0,
        lock_seconds: float = 0.0,
    ) -> None:
        """`queues`: the most urgent first. `urgent_in_a_row`: after so many items of one, the next gets its turn.

        `adopt_seconds`: how long items that another program took, under no lease of ours, are left to it; 0 for ever.
        `look_seconds`: how often such items are looked for; 0 for a tenth of that. `lock_seconds`: how long locks last, unless they are
        renewed or their items given back; at least as long as leases.
        """
        if not queues:
            raise ConfigurationError("BRIDGE_REDIS_QUEUES names no list; name at least one, such as jobs")
        self._access = access
        self._keys = {keys.queue: keys for keys in queues}
        self._turns = Turns([keys.queue for keys in queues], in_a_row=urgent_in_a_row)
        self._lease_seconds = lease_seconds
        self._adopt_seconds = adopt_seconds
        self._look_seconds = look_seconds or adopt_seconds / 10 or _LOOK_SECONDS
        self._lock_seconds = lock_seconds
        self._scripts = {path.stem: Script(path, before=_KINDS) for path in _LUA.glob("*.lua")}
        self._last_delivery = self._last_adoption = float("-inf")
        self._ages = {keys.queue: ListAges() for keys in queues}
        # When each queue's expired leases and due delays were last looked for, and when the next may be due.
        self._last_reaps = dict.fromkeys(self._keys, float("-inf"))
        self._due = DueTimes(list(self._keys))
        self._acknowledgements = {keys.queue: Gatherer(partial(self._acknowledge_all, keys)) for keys in queues}
        # Claims whose receivers are gone, and what they brought on its way back.
        self._orphans: set[asyncio.Task[None]] = set()

    @property
    def look_seconds(self) -> float:
        """How often items are looked for that another program took; 0 for never."""
        return self._look_seconds if self._adopt_seconds else 0.0

    async def close(self) -> None:
        """Wait until what abandoned claims have brought is given back."""
        while self._orphans:
            await asyncio.wait(set(self._orphans))

    async def send(self, message_id: str, body: bytes, *, attributes: Mapping[str, str] | None = None, queue: str = "") -> bool:
        """Add a message to a list, the first one if none is named; false when one with this id lies there already."""
        keys = self._keys[queue or self._turns.most_urgent]
        return bool(await self._run("send", keys, message_id, body, json.dumps(dict(attributes or {}))))

    async def enqueue(self, item: str, *, queue: str = "", correlation: str = "") -> bool:
        """Add an item that is its own body, such as a document's id; false when it lies there or is being worked on.

        `correlation`: the id that it is asked for by, in a queue with ids; empty for a new one.
        """
        return bool(await self._run("enqueue", self._keys[queue or self._turns.most_urgent], item, correlation or str(uuid4())))

    async def requeue_stuck(self, *, seconds: float, only_look: bool = False) -> Sequence[str]:
        """Bring back what nobody holds: items that were begun longer ago, by whomever, and those whose delay is over; returns them."""
        found = [await self._run("stuck", keys, _milliseconds(seconds), int(only_look)) for keys in self._keys.values()]
        return [item.decode() for items in found for item in items]

    async def lacking(self, items: Sequence[str]) -> Sequence[str]:
        """Those of some items that wait in none of the lists, and that nobody works on."""
        for keys in self._keys.values():
            parts = [items[first : first + _MOST_AT_ONCE] for first in range(0, len(items), _MOST_AT_ONCE)]
            items = [item.decode() for part in parts for item in await self._run("lacking", keys, *part)]
        return items

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """At most `limit` deliveries; empty when none came in time."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait_seconds
        while True:
            found = await self._look_around(limit)
            now = clock()
            if found:
                self._last_delivery = now
            if found or now >= deadline:
                return found
            pause = min(self._pause(now), deadline - now)
            if woken := await self._access.wait_for_item(tuple(self._keys), seconds=pause, ended=self._due.sooner):
                # What has just come goes first; the next look sees to the others.
                self._last_reaps[woken] = clock()

    def _pause(self, now: float) -> float:
        """How long to wait for a new item, at most, before what may be due is looked for."""
        if now - self._last_delivery < _IDLE_AFTER_SECONDS:
            return _BUSY_POLL_SECONDS
        looking = self._last_adoption + self._look_seconds if self._adopt_seconds else float("inf")
        due = max(_REAP_SECONDS, min(looking, self._due.next) - now)
        return min(due, _IDLE_POLL_SECONDS if self._access.wakes else _ASKING_POLL_SECONDS)

    async def depth(self) -> int:
        """How many items lie in the lists, leased and delayed ones included."""
        return sum([int(await self._run("depth", keys)) for keys in self._keys.values()])

    async def levels(self) -> Sequence[QueueLevel]:
        """What lies in each list. What others put there tells no time: its age counts from when it was first seen."""
        return [await self._level(keys) for keys in self._keys.values()]

    async def _level(self, keys: ListKeys) -> QueueLevel:
        ages = self._ages[keys.queue]
        waiting, leased, delayed, attributes, last, found, now = await self._run("level", keys, *ages.asked)
        age = ages.looked(found=found, last=last, length=waiting, now=now)
        if sent := json.loads(attributes).get("SentTimestamp"):
            age = now - int(sent)
        return QueueLevel(queue=keys.queue, waiting=waiting, leased=leased, delayed=delayed, oldest_seconds=max(0.0, age / 1000))

    async def renew(self, delivery: Delivery, *, lease_seconds: float) -> None:
        """Prolong the lease. Raises `LeaseLostError` when the receipt is stale."""
        if not await self._with_receipt("renew", delivery, _milliseconds(lease_seconds), self._lock(lease_seconds)):
            raise LeaseLostError(f"the item {delivery.message_id} was delivered again, or is gone")

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take the item off the queue; harmless when it is gone."""
        if not await self._acknowledgements[delivery.queue].ask(delivery.receipt):
            _log.info("acknowledged_late", message_id=delivery.message_id)

    async def release(self, delivery: Delivery, *, delay_seconds: float, tried: bool = True) -> None:
        """Give the item back, to be delivered again after the delay; harmless when the receipt is stale."""
        due = asyncio.get_running_loop().time() + delay_seconds
        try:
            if not await self._with_receipt("release", delivery, _milliseconds(delay_seconds), int(tried)):
                _log.info("released_late", message_id=delivery.message_id)
        finally:
            self._due.given_back(delivery.queue, due)

    async def _look_around(self, limit: int) -> list[Delivery]:
        """What lies in the first list that has anything. Expired leases and due delays are brought back first."""
        now = asyncio.get_running_loop().time()
        adopting = now - self._last_adoption >= self._look_seconds
        if adopting:
            self._last_adoption = now
        for queue in self._turns.order():
            if adopting or now - self._last_reaps[queue] >= _REAP_SECONDS:
                self._last_reaps[queue] = now
                self._due.look_begins(queue)
                foreign, ours = _milliseconds(self._adopt_seconds), _milliseconds(self._lease_seconds)
                arguments = (foreign, int(adopting), self._lock(self._lease_seconds), ours)
                returned, following = await self._run("reap", self._keys[queue], *arguments)
                if following >= 0:
                    self._due.found(queue, now + following / 1000)
                if returned:
                    _log.info("items_came_back", queue=queue, items=returned)
            if found := await self._claim(self._keys[queue], limit):
                self._turns.served(queue, len(found))
                return found
        return []

    async def _claim(self, keys: ListKeys, limit: int) -> list[Delivery]:
        """One script. When we are cancelled meanwhile, what it brings is given back: the script itself cannot be taken back."""
        receipt, limit = token_hex(16), min(limit, _MOST_AT_ONCE)
        correlations = [str(uuid4()) for _ in range(limit)] if keys.correlation else []
        claim = asyncio.ensure_future(
            self._run("claim", keys, limit, _milliseconds(self._lease_seconds), self._lock(self._lease_seconds), receipt, *correlations)
        )
        try:
            taken = await asyncio.shield(claim)
        except asyncio.CancelledError:
            orphan = asyncio.ensure_future(self._return_of(keys, receipt, claim))
            self._orphans.add(orphan)
            orphan.add_done_callback(self._orphans.discard)
            raise
        return [self._delivery(keys.queue, receipt, *row) for row in taken]

    async def _return_of(self, keys: ListKeys, receipt: str, claim: asyncio.Future[list[list[Any]]]) -> None:
        try:
            for row in reversed(await claim):
                await self._run("release", keys, row[0], receipt, 0, 0)
        except BridgeError as error:
            # Its lease runs out, and it comes again.
            _log.warning("abandoned_claim_failed", error=str(error))

    def _delivery(self, queue: str, receipt: str, item: bytes, body: bytes, attributes: bytes, deliveries: int) -> Delivery:
        return Delivery(
            source=self.name,
            queue=queue,
            message_id=_identifier(item),
            receipt=f"{receipt}:{item.decode('utf-8', 'surrogateescape')}",
            body=body,
            attributes=json.loads(attributes.decode(errors="replace")),
            receive_count=int(deliveries),
        )

    async def _with_receipt(self, script: str, delivery: Delivery, *arguments: int) -> bool:
        return bool(await self._run(script, self._keys[delivery.queue], *_item_and_receipt(delivery.receipt), *arguments))

    async def _acknowledge_all(self, keys: ListKeys, receipts: Sequence[str]) -> Sequence[bool]:
        arguments = [part for receipt in receipts for part in _item_and_receipt(receipt)]
        return [bool(answer) for answer in await self._run("acknowledge", keys, *arguments)]

    def _lock(self, lease_seconds: float) -> int:
        return _milliseconds(max(self._lock_seconds, lease_seconds))

    async def _run(self, script: str, keys: ListKeys, *arguments: bytes | str | int) -> Any:
        return await self._access.run(self._scripts[script], keys.in_order, *arguments)


def _item_and_receipt(receipt: str) -> tuple[bytes, str]:
    own, _, item = receipt.partition(":")
    return item.encode("utf-8", "surrogateescape"), own


def _identifier(item: bytes) -> str:
    """The item itself where it is a name, such as that of a document; else its digest."""
    text = item.decode(errors="replace")
    return text if _NAME.fullmatch(text) else hashlib.sha256(item).hexdigest()


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
