"""Messages into lists of Redis that other programs read."""

from __future__ import annotations

from pathlib import Path

from bridge.job import Message
from bridge.redis.access import RedisAccess, Script

_PUSH = Path(__file__).parents[1] / "redis" / "lua" / "push.lua"


class RedisListSink:
    """Adds each body at the right end of the list that the message names."""

    name = "redis-list"

    def __init__(self, access: RedisAccess) -> None:
        self._access = access
        self._push = Script(_PUSH)

    async def send(self, message: Message) -> None:
        """Add, and return once Redis has it. Raises `TransientError`, `PermanentError`, `ConfigurationError`."""
        await self._access.run(self._push, [message.destination], message.body)
