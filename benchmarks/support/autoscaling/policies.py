"""How the platforms decide, as their documents tell, with the numbers that our modules give them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from benchmarks.support.autoscaling.model import Seen

# CloudWatch tells of a minute in the next one. Target tracking acts after 3 minutes above its target, or 15 below nine tenths of it.
_MINUTE = 60.0
_HIGH, _LOW, _LOW_SHARE = 3, 15, 0.9
# The horizontal pod autoscaler: what it takes for no difference, and how fast it grows. Cloud Run is taken to look every 15 s.
_TOLERANCE, _MOST_NEW, _MOST_SHARE = 0.1, 4, 1.0
_LOOK = 15.0


def backlog_of_a_task(seen: Seen, *, target: float, concurrency: int, hold_while_working: bool) -> float:
    """What target tracking compares with `target`. A test holds the metric math of deploy/terraform/modules/queue_scaling to this."""
    if seen.desired < 1:
        return target
    tasks_of_jobs = math.inf if hold_while_working and seen.working else seen.working / concurrency
    busy = min(tasks_of_jobs, seen.desired)
    return max(seen.waiting, target * busy) / seen.desired


@dataclass(kw_only=True)
class EcsTracking:
    """Target tracking on the backlog of a task, and a step from zero to one."""

    minimum: int
    maximum: int
    target_backlog: float
    concurrency: int
    scale_in_cooldown: float
    scale_out_cooldown: float
    # No task goes while any job runs.
    hold_while_working: bool = False
    tick_seconds: float = _MINUTE
    _told: deque[float] = field(default_factory=lambda: deque(maxlen=_LOW + 1))
    _out_at: float = -math.inf
    _in_at: float = -math.inf
    _waited: bool = False

    def wanted(self, now: float, seen: Seen) -> int:
        """Once a minute."""
        self._told.append(
            backlog_of_a_task(seen, target=self.target_backlog, concurrency=self.concurrency, hold_while_working=self.hold_while_working)
        )
        waited, self._waited = self._waited, seen.waiting + seen.working > 0
        if seen.desired == 0:
            return int(waited)
        return self._tracked(now, seen.desired)

    def _tracked(self, now: float, desired: int) -> int:
        # The newest is not told yet.
        told = list(self._told)[:-1]
        asked = math.ceil(desired * told[-1] / self.target_backlog - 1e-9) if told else desired
        high = len(told) >= _HIGH and all(each > self.target_backlog for each in told[-_HIGH:])
        low = len(told) >= _LOW and all(each < _LOW_SHARE * self.target_backlog for each in told[-_LOW:])
        if high and asked > desired and now - self._out_at >= self.scale_out_cooldown:
            self._out_at = now
            return asked
        if low and asked < desired and now - max(self._in_at, self._out_at) >= self.scale_in_cooldown:
            self._in_at = now
            return asked
        return desired


@dataclass(kw_only=True)
class Keda:
    """KEDA asks the queue itself; the pod autoscaler does the rest."""

    minimum: int
    maximum: int
    # Messages, waiting and worked on, for each pod.
    queue_length: float
    polling_interval: float
    cooldown_period: float
    stabilization_seconds: float
    _asked: deque[tuple[float, int]] = field(default_factory=deque)
    _active_at: float = -math.inf

    @property
    def tick_seconds(self) -> float:
        """How often the queue is asked; the autoscaler looks every 15 s, as our scaled objects do."""
        return self.polling_interval

    def wanted(self, now: float, seen: Seen) -> int:
        """By what waits and is worked on."""
        total = seen.waiting + seen.working
        if total:
            self._active_at = now
        if seen.desired == 0:
            return int(total > 0)
        ratio = total / self.queue_length / seen.desired
        asked = seen.desired if abs(ratio - 1) <= _TOLERANCE else math.ceil(total / self.queue_length)
        self._asked.append((now, asked))
        while self._asked[0][0] < now - self.stabilization_seconds:
            self._asked.popleft()
        if asked > seen.desired:
            return min(asked, seen.desired + max(_MOST_NEW, math.ceil(seen.desired * _MOST_SHARE)))
        if total == 0 and now - self._active_at >= self.cooldown_period:
            return 0
        return max(1, min(seen.desired, max(each for _, each in self._asked)))


@dataclass(kw_only=True)
class CloudRun:
    """Instances by the processor time that they use, kept below three fifths; a queue that is pulled from is not asked."""

    minimum: int
    maximum: int
    # Cores of an instance, and those that one job keeps busy.
    cores: float
    cores_a_job: float
    tick_seconds: float = _LOOK

    def wanted(self, now: float, seen: Seen) -> int:
        """By what runs."""
        return math.ceil(seen.working * self.cores_a_job / (0.6 * self.cores))
