"""Queues in the database: receipts, leases, priorities, delayed redelivery."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping

from bridge.database.port import Database
from bridge.gathering import Gatherer

_SQL = Path(__file__).parent / "sql"
# The first and the last that the database's column holds.
EVERY_PRIORITY = (-(2**31), 2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class QueuedMessage:
    """A message as it lies in a queue."""

    # Its place: grows with every message that is sent.
    position: int
    queue: str
    message_id: str
    body: bytes
    attributes: Mapping[str, str]
    # What deletes, prolongs or gives back this delivery; empty when it was only looked at.
    receipt: str
    # Deliveries so far.
    receive_count: int
    # Lower goes first.
    priority: int = 0


class LocalQueue:
    """One named queue. Any number of processes may send to it and receive from it."""

    def __init__(self, database: Database, name: str) -> None:
        self.name = name
        self._database = database
        self._sql = database.statements(_SQL, "local_queue")
        self._deletions: Gatherer[str, bool] = Gatherer(self._delete_all)

    async def send(self, message_id: str, body: bytes, *, attributes: Mapping[str, str] | None = None, priority: int = 0) -> bool:
        """Add a message; false when one with this id lies there already."""
        values = {
            "queue": self.name,
            "message_id": message_id,
            "body": body,
            "attributes": json.dumps(dict(attributes or {})),
            "priority": priority,
        }
        return (await self._database.change(self._sql["send"], values)).count > 0

    async def receive(self, *, limit: int, lease_seconds: float, priorities: tuple[int, int] = EVERY_PRIORITY) -> Sequence[QueuedMessage]:
        """Lease at most `limit` messages, the most urgent first; empty when there is none. `priorities`: the first and the last meant."""
        where = {"queue": self.name, "first": priorities[0], "last": priorities[1]}
        # Where writers queue up, looking first spares them.
        if "waiting" in self._sql and not (await self._database.look(self._sql["waiting"], where)).rows:
            return ()
        found = await self._database.change(self._sql["receive"], {**where, "lease": lease_seconds, "limit": limit})
        return [_message(row) for row in sorted(found.rows, key=lambda row: (row["priority"], row["id"]))]

    async def renew(self, receipt: str, *, lease_seconds: float) -> bool:
        """Prolong a lease; false when the receipt is stale."""
        return await self._change("renew", receipt, lease=lease_seconds)

    async def release(self, receipt: str, *, delay_seconds: float) -> bool:
        """Give a message back; false when the receipt is stale."""
        return await self._change("release", receipt, delay=delay_seconds)

    async def delete(self, receipt: str) -> bool:
        """Take a message off the queue; false when the receipt is stale."""
        return await self._deletions.ask(receipt)

    async def peek(self, *, after: int = 0, limit: int = 100) -> Sequence[QueuedMessage]:
        """Look at messages behind a position, oldest first, leased and delayed ones included."""
        found = await self._database.look(self._sql["peek"], {"queue": self.name, "after": after, "limit": limit})
        return [_message(row) for row in found.rows]

    async def depth(self) -> int:
        """How many messages lie in the queue, leased and delayed ones included."""
        return sum(row["depth"] for row in (await self._database.look(self._sql["depth"], {"queue": self.name})).rows)

    async def level(self) -> Mapping[str, float]:
        """How many messages are `waiting`, `leased` and `delayed`, and the age of the oldest that waits, `oldest_seconds`."""
        [row] = (await self._database.look(self._sql["level"], {"queue": self.name})).rows
        return {name: float(row[name]) for name in ("waiting", "leased", "delayed", "oldest_seconds")}

    async def _delete_all(self, receipts: Sequence[str]) -> Sequence[bool]:
        found = await self._database.change(self._sql["delete"], {"receipts": json.dumps(receipts)})
        deleted = {row["receipt"] for row in found.rows}
        return [receipt in deleted for receipt in receipts]

    async def _change(self, statement: str, receipt: str, **values: Any) -> bool:
        return (await self._database.change(self._sql[statement], {"receipt": receipt, **values})).count > 0


def _message(row: RowMapping) -> QueuedMessage:
    return QueuedMessage(
        position=row["id"],
        queue=row["queue"],
        message_id=row["message_id"],
        body=bytes(row["body"]),
        attributes=json.loads(row["attributes"]),
        receipt=row["receipt"],
        receive_count=row["receive_count"],
        priority=row["priority"],
    )
