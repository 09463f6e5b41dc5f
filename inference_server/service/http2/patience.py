"""How long a peer is waited for, and how much it may ask for nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass

from inference_server.service.http2.frames import ConnectionFailed, ErrorCode

# Frames in a row that bring nothing: more are an attack.
_MOST_IDLE_FRAMES = 10_000
# Calls of a connection that broke the protocol, each by itself.
_MOST_BROKEN_CALLS = 1000
# Pings that come sooner than allowed.
_MOST_STRIKES = 2
# Share of a connection's age by which ages differ, so that clients that came together do not return together.
_JITTER = 0.1


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """What one connection may do."""

    # Calls at a time; a peer keeps more of them back.
    most_streams: int
    # Seconds of silence after which the peer is asked whether it is there.
    keepalive_seconds: float
    # Seconds for it to answer.
    answer_seconds: float = 20.0
    # Shortest time between a peer's own such questions, in seconds.
    shortest_ping_seconds: float
    # Seconds in which what a peer has begun must go on: its greeting, a frame, the headers of a call, a message by a MiB or to its end.
    receive_seconds: float = 30.0
    # Seconds in which a peer must take something of an answer that waits for it.
    send_seconds: float = 300.0
    # Bytes of answers that a peer may leave unread and still ask for more.
    most_unread_bytes: int = 5 * 2**20
    # Seconds without a call after which a connection is ended, and of its whole age; 0 for never.
    idle_seconds: float = 0.0
    age_seconds: float = 0.0

    @property
    def look_seconds(self) -> float:
        """How often connections are looked at, so that no bound is passed by much."""
        asking = (self.keepalive_seconds, self.answer_seconds)
        bounds = (*asking, self.receive_seconds, self.send_seconds, self.idle_seconds, self.age_seconds)
        return min(1.0, *(bound / 4 for bound in bounds if bound > 0))


class Patience:
    """Counts what a peer asks for nothing, and knows since when it has kept us waiting."""

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        self._limits = limits
        self._idle_frames = self._broken_calls = 0
        self._pinged = now
        self._strikes = 0
        self._sent_since_ping = False
        # When something was heard last, and when the peer was asked whether it is there, without an answer.
        self.heard = now
        self._asked: float | None = None
        # When the last call was seen, and which one it was.
        self._busy = now
        self._last_call = 0
        age = limits.age_seconds
        self._end = now + age * random.uniform(1 - _JITTER, 1 + _JITTER) if age else float("inf")  # noqa: S311 - no secret
        # What the peer had begun and not ended, and since when.
        self._begun: object = None
        self._begun_at = now

    # Frames.

    def idle(self) -> None:
        """A frame came that brings nothing. Raises `ConnectionFailed`."""
        self._idle_frames += 1
        if self._idle_frames > _MOST_IDLE_FRAMES:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def broken(self) -> None:
        """A call broke the protocol. Raises `ConnectionFailed`."""
        self._broken_calls += 1
        if self._broken_calls > _MOST_BROKEN_CALLS:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too many calls that break the protocol")

    def useful(self) -> None:
        """A call came, or a part of one."""
        self._idle_frames = 0

    def sent(self, *, useful: bool) -> None:
        """Part of an answer was sent; one that the peer's windows made tiny counts like a frame that brings nothing."""
        self._sent_since_ping = True
        self._idle_frames = 0 if useful else self._idle_frames + 1

    def pinged(self) -> None:
        """The peer asked whether we are there. Raises `ConnectionFailed`."""
        self.idle()
        too_soon = not self._sent_since_ping and self.heard - self._pinged < self._limits.shortest_ping_seconds
        self._strikes = self._strikes + 1 if too_soon else 0
        self._pinged, self._sent_since_ping = self.heard, False
        if self._strikes > _MOST_STRIKES:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "too_many_pings")

    # Time.

    def is_slow(self, begun: object, now: float) -> bool:
        """Whether the peer has not ended what it has `begun`, which differs for each thing, and is None for nothing, for too long."""
        if begun is None or begun != self._begun:
            self._begun, self._begun_at = begun, now
            return False
        return now - self._begun_at > self._limits.receive_seconds

    def must_ask(self, now: float) -> bool:
        """Whether the peer was silent for so long that it is to be asked; once for each silence."""
        if self._asked is not None and self.heard >= self._asked:
            self._asked = None
        if self._asked is not None or now - self.heard < self._limits.keepalive_seconds:
            return False
        self._asked = now
        return True

    def is_gone(self, now: float) -> bool:
        """Whether the peer was asked, and has not answered."""
        return self._asked is not None and self.heard < self._asked and now - self._asked > self._limits.answer_seconds

    def must_leave(self, now: float, *, last_call: int, busy: bool) -> str:
        """Why the connection is to be ended in peace: idle, age; empty when it is not."""
        if busy or last_call != self._last_call:
            self._busy, self._last_call = now, last_call
        if self._limits.idle_seconds and now - self._busy > self._limits.idle_seconds:
            return "idle"
        return "age" if now > self._end else ""
