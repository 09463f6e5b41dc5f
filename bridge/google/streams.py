"""The streams of one subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from bridge.google.stream import PullStream

_log = structlog.get_logger()
# A stream that broke after so long simply had its time; Google ends them every half hour.
_HONEST_LIFE_SECONDS = 5.0


class Streams:
    """See to it that by all streams together no more messages come than are wanted.

    There is more than one where slots became free that the first did not know of. What came by a stream outlives it.
    """

    def __init__(self, subscription: str, *, open_stream: Callable[[int], PullStream], close_seconds: float) -> None:
        """`open_stream`: by which so many messages may come. `close_seconds`: how long the end of one is waited for."""
        self._subscription = subscription
        self._open_stream = open_stream
        self._close_seconds = close_seconds
        self._streams: list[PullStream] = []
        # The most messages that were asked for at once.
        self._most = 0

    def settling(self, seconds: float) -> float:
        """What is left of the moment that a new stream gets, in seconds."""
        return max((seconds - (_now() - stream.opened_at) for stream in self._streams if stream.open), default=0.0)

    async def want(self, limit: int, *, at_hand: int, more: bool) -> None:
        """See to it that `limit` messages can come with those `at_hand`, and not more. Raises why the last stream broke.

        `more`: whether another stream may be opened for them.
        """
        self._drop_ended()
        self._most = max(self._most, limit)
        need = limit - at_hand - sum(stream.free for stream in self._streams)
        need += await self._end_useless(-need)
        if need > 0 and more:
            self._streams.append(self._open_stream(need))

    def settled(self, ack_id: str) -> None:
        """The place of a message is free."""
        for stream in self._streams:
            stream.settle(ack_id)

    def held(self, ack_id: str, *, seconds: float) -> None:
        """The place of a message that nobody works on is not free for so long."""
        for stream in self._streams:
            stream.hold(ack_id, seconds=seconds)

    async def end(self) -> None:
        """Let nothing more come."""
        await self._end(list(self._streams))

    def _drop_ended(self) -> None:
        ended = [stream for stream in self._streams if not stream.open]
        self._streams = [stream for stream in self._streams if stream.open]
        for stream in ended:
            if stream.failure is not None and _now() - stream.opened_at < _HONEST_LIFE_SECONDS:
                raise stream.failure
            _log.info("stream_ended", subscription=self._subscription, reason=str(stream.failure or "it had its time"))

    async def _end_useless(self, surplus: int) -> int:
        """End streams before their held places come free unasked, and those that are too many; returns how many places that takes."""
        ended = [stream for stream in self._streams if stream.blocked]
        places = sum(max(0, stream.free) for stream in ended)
        rest = sorted((stream for stream in self._streams if stream not in ended), key=lambda stream: -stream.free)
        excess = sum(stream.capacity for stream in rest) - self._most
        for stream in rest:
            if excess > 0 and stream.idle and stream.free <= surplus - places:
                ended.append(stream)
                excess -= stream.capacity
                places += max(0, stream.free)
        await self._end(ended)
        return places

    async def _end(self, ended: list[PullStream]) -> None:
        self._streams = [stream for stream in self._streams if stream not in ended]
        await asyncio.gather(*(stream.close(seconds=self._close_seconds) for stream in ended))


def _now() -> float:
    return asyncio.get_running_loop().time()
