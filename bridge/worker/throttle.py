"""Holds receiving back while the server is down or full."""

from __future__ import annotations

import asyncio

from bridge.worker.policy import Backoff

# Of what a server asks us to wait, so much is believed, in seconds.
_LONGEST_ASKED = 600.0
# Tries in a row that were held up, from which on it is taken for what all jobs need.
_ALL_HELD_UP = 4


class Throttle:
    """After an overload receiving pauses; then one job at a time is let through, until one gets past the server."""

    def __init__(self, *, limit: float) -> None:
        """`limit`: the longest pause, in seconds."""
        self._limit = limit
        self._overloads = 0
        self._held_up = 0
        self._paused_until = 0.0
        # The delivery that was let through last, and for how long the next one waits for what comes of it.
        self._let_through: object = None
        self._held_until = 0.0

    @property
    def probing(self) -> bool:
        """Whether only one job at a time may be taken."""
        return self._overloads > 0

    def overloaded(self, retry_after: float, backoff: Backoff) -> float:
        """Note an overload; returns the seconds after which its job may be tried again: no sooner than it was asked to. Others may be."""
        self._overloads += 1
        pause = min(self._limit, retry_after + backoff.delay(self._overloads))
        self._paused_until, self._held_until = _now() + pause, 0.0
        return max(pause, min(retry_after, _LONGEST_ASKED))

    def held_up(self, backoff: Backoff) -> None:
        """Note that the server is well, and what a job needs of it is away. Others may go on, unless all meet with that, one after another.

        Each would be received again and again, and given up by queues that count that.
        """
        self._held_up += 1
        if self._held_up >= _ALL_HELD_UP:
            self.overloaded(0.0, backoff)
        else:
            self._go_on()

    def began(self, delivery: object) -> None:
        """Note that a job was begun. While probing, the next one waits for what comes of it, but not long: it may be a long job."""
        if self.probing:
            self._let_through, self._held_until = delivery, _now() + self._limit

    def untried(self, delivery: object) -> None:
        """Note that a job that was begun came to no server: nothing is to be waited for, if it is the one that was let through."""
        if delivery is self._let_through:
            self._held_until = 0.0

    def relieved(self) -> None:
        """Note that work got past the server."""
        self._held_up = 0
        self._go_on()

    def _go_on(self) -> None:
        self._overloads = 0
        self._paused_until = self._held_until = 0.0

    def pause(self) -> float:
        """Seconds for which nothing may be received."""
        return max(0.0, self._paused_until - _now(), self._held_until - _now())


def _now() -> float:
    return asyncio.get_running_loop().time()
