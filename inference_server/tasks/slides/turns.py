"""Whose turn it is among slides that are analysed at the same time.

The oldest slide's model calls go first. The next one is opened, surveyed and read ahead meanwhile, and its calls fill only what the
oldest leaves of the model. When the oldest has its tiles done and is being written, the next goes on at once, with tiles that are
decoded already. Those after them wait before they are opened. A slide that is being written holds memory too, and keeps its place among
those that are open until it is delivered: memory is bounded however many are asked for, and however slow the store or the caller is.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from inference_server.models.values import Batching
from inference_server.scheduler.port import ModelFacts

# Slides that are open and have tiles left: the oldest, and the one that gets ready.
_SLIDES_AT_ONCE = 2
# Slides that are open and not delivered: those two, and one that is being written beside them. Each holds memory for as long as it is
# open: findings, maps and files while it is written.
_OPEN_AT_ONCE = 3
# The same, those that have stalled and those that are less urgent counted too: there is one place more for a slide that must not wait for
# them, and no other, so that nothing makes memory unbounded.
_MOST_OPEN = 4
# Calls that keep a model busy beside those that run on its instances: one for when one of them ends. Beyond it a younger slide's calls
# wait.
_CALLS_AT_HAND = 1
# An open slide that for so long was neither read nor copied, and has no call, neither under way nor waiting, keeps no other from being
# opened while there is room: its storage or its caller may have gone quiet.
_STALLED_SECONDS = 60.0
_SECONDS_BETWEEN_LOOKS = 5.0


class Turns:
    """The slides of a server: a line for each analysis."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: tells seconds."""
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._numbers = itertools.count()

    @contextmanager
    def take(self, analysis: str, *, priority: int) -> Iterator[Turn]:
        """Line a slide up, and hold its place until it is delivered. `priority`: as the caller named it, see `Caller`."""
        line = self._lines.setdefault(analysis, _Line(self._clock))
        turn = Turn(line, priority=priority, number=next(self._numbers))
        line.slides.append(turn)
        try:
            yield turn
        finally:
            line.leave(turn)
            if not line.slides and self._lines.get(analysis) is line:
                del self._lines[analysis]


class Turn:
    """One slide's place in its line."""

    def __init__(self, line: _Line, *, priority: int, number: int) -> None:
        """`number`: of those of one priority the lower goes first."""
        self._line = line
        self._priority = priority
        self._number = number
        # Calls under way and waiting.
        self.calls = 0
        # When it was opened, some of it was last read or copied, or its last call ended; None before it is opened.
        self.moved_at: float | None = None
        # Whether there may be tiles left.
        self.has_tiles = True

    @property
    def place(self) -> tuple[int, int]:
        """Lower goes first."""
        return self.level, self._number

    @property
    def level(self) -> int:
        """The priority that the model's scheduler gives its calls; lower goes first."""
        return self._line.batching.level(self._priority)

    async def may_open(self, model: ModelFacts) -> None:
        """Wait until the slide may be opened. `model`: the one that it will call."""
        self._line.calls(model)
        await self._line.may_open(self)

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Wait until the slide may call the model, and hold the call for as long as the block lasts."""
        await self._line.may_call(self)
        try:
            yield
        finally:
            self._line.ended(self)

    def moved(self) -> None:
        """Tell that it has not stalled: some of it was read or copied."""
        if self.moved_at is not None:
            self.moved_at = self._line.clock()

    def end(self) -> None:
        """Let the next slide go on: the tiles are done. The place among the open ones is kept."""
        self._line.end(self)


class _Line:
    """The slides that want one analysis."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        # Those that are not delivered, opened or not.
        self.slides: list[Turn] = []
        self._under_way = 0
        # Of the model, from when the first slide is ready to be opened.
        self.batching = Batching()
        self._instances = 1
        # Slides with a call that waits, once for each.
        self._waiting: list[Turn] = []
        # Those who wait, and what for.
        self._sleepers: dict[asyncio.Future[None], Callable[[], bool]] = {}

    def calls(self, model: ModelFacts) -> None:
        """Go by what is known of the model that is called."""
        self.batching, self._instances = model.batching, model.instances

    async def may_open(self, turn: Turn) -> None:
        """Wait until fewer than two slides that go before it have tiles left, and there is a place among those that are open."""

        def ready() -> bool:
            # Places that are free belong to those that go before it and wait for one, too.
            taken = [other for other in self.slides if other.place < turn.place or other.moved_at is not None]
            going = [other for other in taken if other.level <= turn.level and not self._has_stalled(other)]
            ahead = sum(other.place < turn.place and other.has_tiles for other in going)
            return ahead < _SLIDES_AT_ONCE and len(going) < _OPEN_AT_ONCE and len(taken) < _MOST_OPEN

        while not ready():
            await self._sleep(ready, seconds=_SECONDS_BETWEEN_LOOKS)
        turn.moved_at = self.clock()

    async def may_call(self, turn: Turn) -> None:
        """Wait until the slide is the first, or the model has too little to do, and begin a call."""
        self._waiting.append(turn)
        turn.calls += 1
        try:
            while not self._is_next(turn):
                await self._sleep(lambda: self._is_next(turn))
            self._under_way += 1
        except BaseException:
            turn.calls -= 1
            raise
        finally:
            self._waiting.remove(turn)
            self._wake()

    def ended(self, turn: Turn) -> None:
        """End a call."""
        self._under_way -= 1
        turn.calls -= 1
        turn.moved()
        self._wake()

    def end(self, turn: Turn) -> None:
        """Let others have the calls of a slide."""
        turn.has_tiles = False
        turn.moved()
        self._wake()

    def leave(self, turn: Turn) -> None:
        """Take a slide out of the line."""
        self.slides.remove(turn)
        self._wake()

    def _is_next(self, turn: Turn) -> bool:
        if all(turn.place <= other.place for other in self.slides if other.has_tiles):
            return True
        return self._under_way < self._instances + _CALLS_AT_HAND and all(turn.place <= other.place for other in self._waiting)

    def _has_stalled(self, turn: Turn) -> bool:
        return turn.calls == 0 and turn.moved_at is not None and self.clock() - turn.moved_at > _STALLED_SECONDS

    async def _sleep(self, ready: Callable[[], bool], *, seconds: float | None = None) -> None:
        """Sleep until a change makes it ready, or for some seconds."""
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers[sleeper] = ready
        try:
            await asyncio.wait((sleeper,), timeout=seconds)
        finally:
            del self._sleepers[sleeper]

    def _wake(self) -> None:
        for sleeper, ready in self._sleepers.items():
            if not sleeper.done() and ready():
                sleeper.set_result(None)
