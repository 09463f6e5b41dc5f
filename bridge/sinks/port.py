"""What every sink of results fulfils."""

from __future__ import annotations

from typing import Protocol

from bridge.job import Message


class Sink(Protocol):
    """A queue, topic or channel that results go to."""

    async def send(self, message: Message) -> None:
        """Send, and return once the other side has it. Raises `TransientError`, `PermanentError`."""
