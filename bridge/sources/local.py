"""Jobs from a queue in the embedded database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bridge.database.local_queue import EVERY_PRIORITY, LocalQueue, QueuedMessage
from bridge.errors import LeaseLostError
from bridge.job import Delivery
from bridge.sources.port import QueueLevel
from bridge.sources.turns import Urgencies

# Between two looks at an empty queue, in seconds: the longer nothing has come, the longer, so that what comes waits a small part of that.
_SHORTEST_POLL_SECONDS = 0.005
_LONGEST_POLL_SECONDS = 0.25
_SHARE_OF_QUIET = 0.1


class LocalSource:
    """Delivers the messages of one embedded queue, each leased to its receiver."""

    name = "local"

    def __init__(self, queue: LocalQueue, *, lease_seconds: float, urgent_in_a_row: int = 8) -> None:
        """`urgent_in_a_row`: after so many messages of one priority a less urgent one gets its turn."""
        self._queue = queue
        self._urgencies = Urgencies(in_a_row=urgent_in_a_row)
        self._lease_seconds = lease_seconds
        self._last_delivery = 0.0

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """At most `limit` deliveries, the most urgent first; empty when none came in time."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait_seconds
        while True:
            messages = await self._take(limit)
            now = clock()
            if messages:
                self._last_delivery = now
            if messages or now >= deadline:
                return [self._delivery(message) for message in messages]
            pause = max(_SHORTEST_POLL_SECONDS, _SHARE_OF_QUIET * (now - self._last_delivery))
            await asyncio.sleep(min(pause, _LONGEST_POLL_SECONDS, deadline - now))

    async def _take(self, limit: int) -> Sequence[QueuedMessage]:
        """The most urgent; but one whose turn it is first."""
        for first, last in self._urgencies.ranges():
            priorities = (EVERY_PRIORITY[0] if first is None else first, EVERY_PRIORITY[1] if last is None else last)
            if messages := await self._queue.receive(limit=1, lease_seconds=self._lease_seconds, priorities=priorities):
                break
        else:
            messages = await self._queue.receive(limit=limit, lease_seconds=self._lease_seconds)
        for message in messages:
            self._urgencies.served(message.priority)
        return messages

    async def levels(self) -> Sequence[QueueLevel]:
        """What lies in the queue. Raises `TransientError`."""
        return [QueueLevel(queue=self._queue.name, **await self._queue.level())]

    async def renew(self, delivery: Delivery, *, lease_seconds: float) -> None:
        """Prolong the queue's own lease. Raises `LeaseLostError` when the receipt is stale."""
        if not await self._queue.renew(delivery.receipt, lease_seconds=lease_seconds):
            raise LeaseLostError(f"the message {delivery.message_id} was delivered again, or is gone")

    async def acknowledge(self, delivery: Delivery) -> None:
        """Take the message off the queue."""
        await self._queue.delete(delivery.receipt)

    async def release(self, delivery: Delivery, *, delay_seconds: float, tried: bool = True) -> None:
        """Give the message back, to be delivered again after the delay."""
        await self._queue.release(delivery.receipt, delay_seconds=delay_seconds)

    def _delivery(self, message: QueuedMessage) -> Delivery:
        return Delivery(
            source=self.name,
            queue=message.queue,
            message_id=message.message_id,
            receipt=message.receipt,
            body=message.body,
            attributes=message.attributes,
            receive_count=message.receive_count,
        )
