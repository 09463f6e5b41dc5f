"""Watches for the notice that EC2 gives a Spot instance two minutes before it takes it.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html, asked with session tokens (IMDSv2).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from bridge.errors import TransientError
from bridge.hosting.metadata import LocalService
from bridge.pauses import stopped

_log = structlog.get_logger()
_TOKEN_PATH = "/latest/api/token"  # noqa: S105
_ACTION_PATH = "/latest/meta-data/spot/instance-action"
_REBALANCE_PATH = "/latest/meta-data/events/recommendations/rebalance"
_TOKEN_SECONDS = 21_600
_NOT_FOUND, _UNAUTHORIZED, _OK = 404, 401, 200


@dataclass(frozen=True, kw_only=True)
class Notice:
    """That the machine is about to go."""

    # What EC2 will do: terminate, stop, hibernate; or rebalance, where it only may.
    action: str
    # Seconds from now; None when no time was told.
    seconds_left: float | None


class SpotWatch:
    """Asks the metadata service every few seconds, until there is a notice."""

    def __init__(
        self,
        service: LocalService,
        *,
        rebalance: bool = False,
        every_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`rebalance`: whether recommendations count as notices too."""
        self._service = service
        self._rebalance = rebalance
        self._every_seconds = every_seconds
        self._clock = clock
        self._token = ""
        self._recommended = False
        self._failing = False

    async def run(self, stop: asyncio.Event, noticed: Callable[[Notice], None]) -> None:
        """Watch until `stop`, or until the instance is to be taken. A service that does not answer is asked again.

        `noticed`: called once for each kind of notice.
        """
        while not stop.is_set() and not await self.look(noticed):
            await stopped(stop, self._every_seconds)

    async def look(self, noticed: Callable[[Notice], None]) -> bool:
        """Ask once; whether the instance is to be taken."""
        try:
            action = await self._ask(_ACTION_PATH)
            recommendation = await self._ask(_REBALANCE_PATH) if self._rebalance and not self._recommended else b""
        except TransientError as error:
            if not self._failing:
                _log.warning("spot_watch_failed", reason=str(error))
            self._failing = True
            return False
        self._failing = False
        if action:
            noticed(self._read(action))
        elif recommendation:
            self._recommended = True
            noticed(Notice(action="rebalance", seconds_left=None))
        return bool(action)

    async def _ask(self, path: str) -> bytes:
        """What lies there; empty when nothing does. Raises `TransientError`."""
        answer = await self._service.call("GET", path, headers={"X-aws-ec2-metadata-token": self._token}) if self._token else None
        if answer is None or answer.status == _UNAUTHORIZED:
            await self._renew_token()
            answer = await self._service.call("GET", path, headers={"X-aws-ec2-metadata-token": self._token})
        if answer.status not in {_OK, _NOT_FOUND}:
            raise TransientError(f"the metadata service answered {answer.status} for {path}")
        return answer.body if answer.status == _OK else b""

    async def _renew_token(self) -> None:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
        answer = await self._service.call("PUT", _TOKEN_PATH, headers=headers)
        if answer.status != _OK:
            raise TransientError(f"the metadata service gave no token ({answer.status})")
        self._token = answer.body.decode(errors="replace").strip()

    def _read(self, body: bytes) -> Notice:
        try:
            told = json.loads(body)
            until = datetime.fromisoformat(str(told["time"])).timestamp()
            return Notice(action=str(told["action"]), seconds_left=max(0.0, until - self._clock()))
        except (ValueError, KeyError, TypeError):
            _log.warning("spot_notice_unreadable", notice=body[:200].decode(errors="replace"))
            return Notice(action="unknown", seconds_left=None)
