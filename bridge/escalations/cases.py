"""The list of Redis that cases for people lie in until they are handed over, and the list of those that were given up.

A case is a JSON object, as the platform writes it: `{payload, queuedAt, attempts}`. Ours may have `notBefore` beside it, in ms since 1970,
`ticket` once it was handed over and its ticket is not kept yet, and once it is given up `diedAt` and `reason`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.escalations import State, keys_of
from bridge.job import Event
from bridge.redis.access import RedisAccess, Script

_LUA = Path(__file__).parents[1] / "redis" / "lua"
# Longer than a call and its tries take, in ms.
_TURN = 180_000
# What comes after it, in seconds since 1970, is no moment: the year 9999.
_LAST_MOMENT = 253_370_764_800


@dataclass(frozen=True, kw_only=True)
class Escalation:
    """A case that lies in one of the lists."""

    # As it lies there.
    value: bytes
    state: State
    # All of it; empty where it cannot be read.
    content: Mapping[str, Any]
    # Its document; empty where the case cannot be read.
    document: str
    # The platform's own review that it is of, where its web service has put it there; empty for a worker's.
    review: str
    # Failed tries that count.
    attempts: int
    # In seconds since 1970: since when it waits, and since when it is dead; None where nobody said, or no moment.
    queued_at: float | None
    died_at: float | None
    # Why it was given up; empty for one that waits.
    reason: str
    # Of a case that was handed over, but whose ticket is not kept yet; else empty.
    ticket: str


class EscalationList:
    """Both lists. A case is in one of them at any moment; whoever has the turn hands the first one over."""

    def __init__(self, access: RedisAccess, key: str) -> None:
        """`key`: of the list; the dead lie in `key:dead`."""
        self._access = access
        self._key, self._dead, self._turn = keys_of(key)
        self._head, self._settle, self._move = (Script(_LUA / f"{name}.lua") for name in ("head", "settle", "move"))

    def later(self, case: Mapping[str, Any]) -> Event:
        """The message that puts a case into the list, in the platform's form."""
        body = _written({"payload": case, "queuedAt": _now(), "attempts": 0})
        return Event(type="escalation", destination=f"redis-list:{self._key}", body=body)

    async def waiting(self) -> int:
        """How many cases wait. Raises `TransientError`, `ConfigurationError`."""
        return await self._access.length(self._key)

    async def counts(self) -> Mapping[str, int]:
        """How many cases wait, and how many were given up. Raises as `waiting` does."""
        return {State.WAITING: await self.waiting(), State.DEAD: await self._access.length(self._dead)}

    async def list(self, state: State, *, limit: int) -> Sequence[Escalation]:
        """The oldest of them. Raises as `waiting` does."""
        found = await self._access.items(self._dead if state is State.DEAD else self._key, limit=limit)
        return [escalation_of(value, state) for value in found]

    async def replay(self, dead: Escalation) -> bool:
        """Let a dead case wait again, with all its attempts; false when another program was quicker. Raises as `waiting` does."""
        left = {name: value for name, value in dead.content.items() if name not in {"diedAt", "reason", "notBefore"}}
        again = _written({**left, "attempts": 0}) if dead.document else dead.value
        return bool(await self._access.run(self._move, [self._dead, self._key], dead.value, again))

    async def drop(self, dead: Escalation) -> bool:
        """Take a dead case away for good; false when it is gone. Raises as `waiting` does."""
        return bool(await self._access.run(self._move, [self._dead, self._key], dead.value, ""))

    async def take(self, who: str) -> Escalation | None:
        """The first case that is due, for whoever has the turn; None when there is none, or another program's turn is not over.

        It stays in the list. Raises as `waiting` does.
        """
        value = await self._access.run(self._head, [self._key, self._turn], who, _TURN)
        return None if value is None else escalation_of(value, State.WAITING)

    async def finish(self, who: str, case: Escalation) -> None:
        """Take a case off the list, and end the turn."""
        await self._settled(who, case, b"")

    async def put_back(self, who: str, case: Escalation) -> None:
        """Put a case behind the others as it is, so that it holds up none, and end the turn."""
        await self._settled(who, case, case.value)

    async def put_back_with(self, who: str, case: Escalation, *, ticket: str, seconds: float) -> None:
        """Put a case behind the others with its ticket, which is to be kept once so many seconds have passed, and end the turn."""
        await self._settled(who, case, _written({**case.content, "ticket": ticket, "notBefore": _now() + round(1000 * seconds)}))

    async def postpone(self, who: str, case: Escalation, *, seconds: float) -> None:
        """Count a failed try, and put the case behind the others until so many seconds have passed."""
        later = {"attempts": case.attempts + 1, "notBefore": _now() + round(1000 * seconds)}
        await self._settled(who, case, _written({**case.content, **later}))

    async def bury(self, who: str, case: Escalation, *, reason: str) -> None:
        """Give a case up: it lies among the dead until a person has looked at it."""
        died = {"attempts": case.attempts + 1, "diedAt": _now(), "reason": reason}
        body = case.value
        if case.document:
            with suppress(RecursionError):  # so deep that it could just be read
                body = _written({**case.content, **died})
        await self._settled(who, case, body, self._dead)

    async def _settled(self, who: str, case: Escalation, then: bytes, where: str = "") -> None:
        await self._access.run(self._settle, [self._key, self._turn, where or self._key], who, case.value, then)


def escalation_of(value: bytes, state: State) -> Escalation:
    """A case as it lies in a list, however it is broken."""
    content = _read(value)
    payload = content.get("payload")
    told = payload if isinstance(payload, dict) else {}
    document = _identifier(told.get("documentId"))
    return Escalation(
        value=value,
        state=state,
        content=content,
        document=document,
        review=_identifier(told.get("reviewId")),
        attempts=max(0, int(_number(content.get("attempts")) or 0)),
        queued_at=_seconds(content.get("queuedAt")),
        died_at=_seconds(content.get("diedAt")),
        reason=_shown(str(content.get("reason") or "")) if document else "it cannot be read: it is no case with a payload and a documentId",
        ticket=_shown(str(content.get("ticket") or "")),
    )


def _read(value: bytes) -> dict[str, Any]:
    try:
        content = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _identifier(told: object) -> str:
    # No text, or half a character in it: nothing has such an id, and nothing can show it.
    return told if isinstance(told, str) and told == _shown(told) else ""


def _written(content: Mapping[str, Any]) -> bytes:
    # In ASCII: JSON may hold halves of characters, which UTF-8 has no bytes for.
    return json.dumps(content).encode()


def _shown(text: str) -> str:
    return text.encode(errors="replace").decode()


def _number(value: object) -> float | None:
    if not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _seconds(milliseconds: object) -> float | None:
    found = _number(milliseconds)
    return found / 1000 if found is not None and 0 <= found / 1000 < _LAST_MOMENT else None


def _now() -> int:
    return round(time.time() * 1000)
