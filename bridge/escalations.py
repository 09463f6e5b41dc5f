"""Cases for people that could not be handed over at once: they lie in a list of Redis, and are handed over from there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

import structlog

from bridge.errors import BridgeError, PermanentError
from bridge.job import Event
from bridge.pauses import stopped
from bridge.redis.access import RedisAccess, Script
from bridge.reviews import ReviewService

_log = structlog.get_logger()
_LUA = Path(__file__).parent / "redis" / "lua"
# Longer than a call and its tries take, in ms.
_TURN = 180_000
# After so many failures a case lies in `list:dead`, for a person to look at.
_MOST_ATTEMPTS = 5


class EscalationList:
    """The list, and the loop that empties it. One program at a time hands over; a case leaves the list once it has its ticket."""

    def __init__(
        self,
        access: RedisAccess,
        reviews: ReviewService,
        *,
        key: str,
        keep_ticket: Callable[[str, str], Awaitable[None]],
        interval: float = 30.0,
    ) -> None:
        """`keep_ticket`: takes a document's id and its ticket. `interval`: seconds between two looks."""
        self._access = access
        self._reviews = reviews
        self._key = key
        self._keep_ticket = keep_ticket
        self._interval = interval
        self._head, self._settle, self._push = (Script(_LUA / f"{name}.lua") for name in ("head", "settle", "push"))

    def later(self, case: Mapping[str, Any]) -> Event:
        """The message that puts a case into the list, in the platform's form."""
        body = json.dumps({"payload": case, "queuedAt": round(time.time() * 1000), "attempts": 0}, ensure_ascii=False)
        return Event(type="escalation", destination=f"redis-list:{self._key}", body=body.encode())

    async def waiting(self) -> int:
        """How many cases lie there. Raises `TransientError`, `ConfigurationError`."""
        return await self._access.length(self._key)

    async def run(self, stop: asyncio.Event) -> None:
        """Hand cases over until `stop`."""
        while not stop.is_set():
            try:
                while not stop.is_set() and await self.hand_over():
                    pass
            except BridgeError as error:
                _log.warning("escalations_delayed", reason=str(error))
            await stopped(stop, self._interval)

    async def hand_over(self) -> bool:
        """Hand the first case over; false when there is none, another program has its turn, or the service does not take it now."""
        keys, who = [self._key, f"{self._key}:turn"], token_hex(8)
        value = await self._access.run(self._head, keys, who, _TURN)
        if value is None:
            return False
        try:
            case = json.loads(value)
            payload, attempts = case["payload"], int(case.get("attempts", 0))
            document = str(payload["documentId"])
        except (ValueError, KeyError, TypeError):
            _log.exception("escalation_unreadable")
            await self._give_up(keys, who, value)
            return True
        try:
            ticket = await self._reviews.submit(payload)
        except BridgeError as error:
            _log.warning("escalation_failed", document=document, attempts=attempts + 1, reason=str(error))
            if attempts + 1 >= _MOST_ATTEMPTS or isinstance(error, PermanentError):
                await self._give_up(keys, who, value)
                return True
            again = json.dumps({**case, "attempts": attempts + 1}, ensure_ascii=False)
            await self._access.run(self._settle, keys, who, value, again)
            return False
        await self._keep_ticket(document, ticket)
        await self._access.run(self._settle, keys, who, value, "")
        return True

    async def _give_up(self, keys: list[str], who: str, value: bytes) -> None:
        await self._access.run(self._push, [f"{self._key}:dead"], value)
        await self._access.run(self._settle, keys, who, value, "")
