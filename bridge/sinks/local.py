"""Results into a queue of the embedded database."""

from __future__ import annotations

from bridge.database.local_queue import LocalQueue
from bridge.database.port import Database
from bridge.job import Message


class LocalSink:
    """Puts each message into the embedded queue that it is meant for. A message that lies there already is kept once."""

    def __init__(self, database: Database, *, queue: str = "results") -> None:
        """`queue`: takes the messages that name no destination."""
        self._database = database
        self._queue = queue

    async def send(self, message: Message) -> None:
        """Send, and return once the message is on the disk."""
        attributes = {**message.attributes, "job_key": message.job_key, "type": message.type}
        await LocalQueue(self._database, message.destination or self._queue).send(message.message_id, message.body, attributes=attributes)
