"""Where the server is in its life, and what is in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum

from inference_server.errors import Overloaded, Unavailable

# Seconds after which a call that found no place may find one.
_RETRY_AFTER = 0.25


class Phase(Enum):
    """The phases, in their order."""

    # Answers calls; models are being loaded.
    LOADING = "the models are loading"
    # Answers calls, and wants more.
    READY = ""
    # Answers calls, and tells load balancers to send no more.
    LEAVING = "the server is shutting down"
    # Answers what is in flight, and refuses what is new.
    DRAINING = "the server is shutting down and takes no new calls"


class Lifecycle:
    """Moves forward only, and counts the calls in flight."""

    def __init__(self, *, most_calls: int = 4096) -> None:
        """`most_calls`: calls at a time; probes have as many places again of their own."""
        self.phase = Phase.LOADING
        self._most_calls = most_calls
        self._probes = 0
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        # Set from when new calls are refused.
        self._draining = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether more calls are wanted."""
        return self.phase is Phase.READY

    @property
    def in_flight(self) -> int:
        """Calls that have begun and not ended; probes are not counted."""
        return self._in_flight

    def advance(self, phase: Phase) -> None:
        """Go to a later phase; going back is ignored, so that a slow load cannot make a leaving server ready."""
        phases = list(Phase)
        if phases.index(phase) > phases.index(self.phase):
            self.phase = phase
        if phase is Phase.DRAINING:
            self._draining.set()

    def enter(self) -> None:
        """A call begins. Raises `Unavailable` when the server takes no new ones, `Overloaded` when it has too many."""
        if self.phase is Phase.DRAINING:
            raise Unavailable(f"{Phase.DRAINING.value}; call another one, or try again.")
        self._check_places(self._in_flight)
        self._in_flight += 1
        self._idle.clear()

    def leave(self) -> None:
        """A call that was let in has ended."""
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()

    def enter_probe(self) -> None:
        """A probe that lasts begins; shutting down does not wait for it. Raises `Overloaded`."""
        self._check_places(self._probes)
        self._probes += 1

    def leave_probe(self) -> None:
        """It has ended."""
        self._probes -= 1

    def _check_places(self, taken: int) -> None:
        if taken >= self._most_calls:
            raise Overloaded(f"{taken} calls are open, which is the limit; try again shortly.", retry_after=_RETRY_AFTER, limit="calls")

    async def draining(self) -> None:
        """Wait until new calls are refused."""
        await self._draining.wait()

    async def idle(self) -> None:
        """Wait until nothing is in flight."""
        await self._idle.wait()


class BytesInFlight:
    """Admits requests while their bytes fit under a bound."""

    def __init__(self, *, most: int, observe: Callable[[int], None] = lambda _: None) -> None:
        """`observe` is told the sum after each change."""
        self._most = most
        self._held = 0
        self._observe = observe

    def try_hold(self, size: int) -> bool:
        """Take `size` bytes if they fit. A request alone always fits: the message limit bounds it."""
        if self._held and self._held + size > self._most:
            return False
        self._change(size)
        return True

    def holding(self, size: int) -> Holding:
        """Take them, and give them back at the end of a `with`. Raises `Overloaded` when they do not fit."""
        if not self.try_hold(size):
            raise Overloaded(
                f"the requests in flight hold too many bytes for another {size}; try again shortly.",
                retry_after=_RETRY_AFTER,
                limit="bytes_in_flight",
            )
        return Holding(self, size)

    def release(self, size: int) -> None:
        """Give back what `try_hold` took."""
        self._change(-size)

    def _change(self, by: int) -> None:
        self._held += by
        self._observe(self._held)


class Holding:
    """Bytes that are given back at the end of a `with`. A class, for a generator takes three times as long, on each request."""

    __slots__ = ("_bytes", "_size")

    def __init__(self, held: BytesInFlight, size: int) -> None:
        self._bytes = held
        self._size = size

    def __enter__(self) -> None:
        """Nothing more: they are held already."""

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        self._bytes.release(self._size)
