"""How fast the candidates for a model are: each is timed in turns with the fastest so far, so that what disturbs the machine meets both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from inference_server.engine.port import Engine, Tensors
from inference_server.engine.selection.agreement import deviation
from inference_server.engine.selection.measurements import Measurement
from inference_server.errors import ModelFailed

# Seconds that some work took.
Clock = Callable[[Callable[[], object]], float]

_WARM_UP_RUNS = 2
# Runs of a small model are repeated until a turn has lasted so long: the first ones find the other engine's data in the caches.
_TURN_SECONDS = 0.005
_FEWEST_ROUNDS = 3
# Rounds end after the first of these where it is plain who is faster, and after the second anyhow.
_ROUNDS, _MOST_ROUNDS = 7, 14
_SECONDS, _MOST_SECONDS = 1.0, 2.0
# What is within this share of each other may be noise.
_NOISE = 0.1


class Timed:
    """One engine and how long its turns took. `run`: one run on the sample."""

    def __init__(self, run: Callable[[], object], clock: Clock) -> None:
        self._run = run
        self._clock = clock
        self._turns: list[float] = []

    def turn(self) -> None:
        """Run, once or for some milliseconds; the fastest of the runs counts."""
        begun = time.monotonic()
        fastest = self._clock(self._run)
        while time.monotonic() - begun < _TURN_SECONDS:
            fastest = min(fastest, self._clock(self._run))
        self._turns.append(fastest)

    @property
    def seconds(self) -> float:
        """The fastest turn but one: right when two of all turns met no disturbance, and not misled by one that was measured too short."""
        return sorted(self._turns)[:2][-1]

    @property
    def steady(self) -> bool:
        """Whether its two fastest turns agree, as undisturbed ones do."""
        return self.seconds <= min(self._turns) * (1 + _NOISE)


def time_in_turns(one: Timed, other: Timed) -> None:
    """Time two engines until it is plain which is the faster, or a limit is met."""
    begun = time.monotonic()
    rounds = 0
    while rounds < _FEWEST_ROUNDS or _goes_on(rounds, time.monotonic() - begun, one, other):
        one.turn()
        other.turn()
        rounds += 1


def _goes_on(rounds: int, seconds: float, one: Timed, other: Timed) -> bool:
    if rounds < _ROUNDS and seconds < _SECONDS:
        return True
    return rounds < _MOST_ROUNDS and seconds < _MOST_SECONDS and not _is_plain(one, other)


def _is_plain(one: Timed, other: Timed) -> bool:
    faster, slower = sorted((one.seconds, other.seconds))
    return one.steady and other.steady and slower > faster * (1 + _NOISE)


@dataclass(frozen=True, kw_only=True)
class _Leader:
    """The fastest candidate so far of those that may serve."""

    engine: Engine
    seconds: float


class Contest:
    """Measures candidates one after the other and holds at most two of them loaded: the fastest so far and the next.

    `expected`: what the reference made of `sample`. `may_lead`: whether a candidate may serve. `apart`: whether one that fails beside the
    leader is tried again without it, because a device may be too small for both.
    """

    def __init__(
        self, sample: Tensors, expected: Tensors, *, clock: Clock, may_lead: Callable[[Measurement], bool], apart: bool = False
    ) -> None:
        self._sample = sample
        self._expected = expected
        self._clock = clock
        self._may_lead = may_lead
        self._apart = apart
        self._leader: _Leader | None = None

    def measure(self, candidate: str, load: Callable[[], Engine]) -> Measurement:
        """How a candidate does; one that cannot be loaded or run is told as failed."""
        try:
            return self._measured(candidate, load)
        except ModelFailed as error:
            failure = str(error)
        if self._apart and self._leader is not None:
            self._leader = None
            return self.measure(candidate, load)
        return Measurement(candidate=candidate, seconds=math.inf, error=math.inf, failure=failure)

    def _measured(self, candidate: str, load: Callable[[], Engine]) -> Measurement:
        engine = load()
        error = deviation(engine.run(self._sample), self._expected)
        for _ in range(_WARM_UP_RUNS - 1):
            engine.run(self._sample)
        measured = Measurement(candidate=candidate, seconds=self._seconds(engine), error=error)
        if self._may_lead(measured) and (self._leader is None or measured.seconds < self._leader.seconds):
            self._leader = _Leader(engine=engine, seconds=measured.seconds)
        return measured

    def _seconds(self, engine: Engine) -> float:
        timed = self._timed(engine)
        if self._leader is None:
            for _ in range(_FEWEST_ROUNDS):
                timed.turn()
            return timed.seconds
        leader = self._timed(self._leader.engine)
        time_in_turns(leader, timed)
        # The machine may be slower now than it was for the leader's own figure: what counts is how the two did side by side.
        return timed.seconds / leader.seconds * self._leader.seconds

    def _timed(self, engine: Engine) -> Timed:
        return Timed(lambda: engine.run(self._sample), self._clock)
