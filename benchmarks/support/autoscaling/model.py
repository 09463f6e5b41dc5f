"""A day, or many, of jobs through workers that a platform starts and stops: a simulation by discrete events.

Two events a job on a heap of the standard library: simpy's processes cost ten times as much, and a million jobs have to fit in seconds.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np

DAY = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """What tasks are like."""

    # Jobs that one works on at once.
    concurrency: int
    # From the wish for a task until it takes jobs, in seconds.
    start_seconds: float
    # A job that comes to an idle task waits up to so long for its next poll, in seconds.
    poll_seconds: float
    # How often a task's machine is taken away, an hour; and how long before it is told, in seconds.
    interruptions_an_hour: float
    notice_seconds: float
    # Tasks that work are never chosen to go; else they may end what they have for `drain_seconds`.
    protected: bool
    drain_seconds: float
    # Of what a job had done when it was cut off, the share that counts at its next try.
    kept: float


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a policy can know."""

    waiting: int
    working: int
    # Tasks that are wanted, whether they take jobs yet or not.
    desired: int


class Policy(Protocol):
    """How many tasks there should be."""

    tick_seconds: float
    minimum: int
    maximum: int

    def wanted(self, now: float, seen: Seen) -> int:
        """Asked at every tick."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it."""

    # From its sending to its first start, of each job in seconds, in the order of sending.
    waits: np.ndarray
    # From the first wish for a task to its end, summed over the tasks, in hours.
    task_hours: float
    # Most tasks at a time; tasks that were started; jobs that were cut off and gone on with elsewhere.
    most_tasks: int
    starts: int
    cut_off: int
    # Of all jobs, those that ended.
    ended: int


class _Kind(IntEnum):
    DONE = 0
    READY = 1
    TICK = 2
    NOTICE = 3
    KILL = 4


class _Task:
    __slots__ = ("began", "busy", "leaving", "ready")

    def __init__(self, began: float) -> None:
        self.began = began
        self.ready = False
        self.leaving = False
        # When each of its jobs began.
        self.busy: dict[int, float] = {}


class Simulation:
    """Jobs are taken in the order of sending; what is cut off goes to the head of the queue."""

    def __init__(self, arrivals: Sequence[float], seconds: Sequence[float], fleet: Fleet, policy: Policy, *, seed: int) -> None:
        """`arrivals`: sorted, in seconds. `seconds`: how long each job takes in one of a task's places."""
        self._arrivals = arrivals
        self._left = list(seconds)
        self._fleet = fleet
        self._policy = policy
        self._chance = random.Random(seed)
        self._events: list[tuple[float, int, _Kind, int, int]] = []
        self._count = 0
        self._queue: deque[int] = deque()
        self._tasks: dict[int, _Task] = {}
        # Tasks with a free place, perhaps named twice, perhaps gone.
        self._free: deque[int] = deque()
        self._starting = self._running = self._working = self._ended = self._cut_off = self._most = 0
        self._desired = self._count_of_tasks = 0
        self._hours = 0.0
        # None until a job begins for the first time.
        self._waits: list[float | None] = [None] * len(arrivals)

    def run(self) -> Outcome:
        """Until every job has ended."""
        self._want(0.0, self._policy.minimum)
        self._push(0.0, _Kind.TICK)
        arrivals, events, total = self._arrivals, self._events, len(self._arrivals)
        following, now = 0, 0.0
        while self._ended < total:
            if following < total and arrivals[following] <= events[0][0]:
                now = arrivals[following]
                self._arrive(now, following)
                following += 1
                continue
            now, _, kind, subject, job = heapq.heappop(events)
            self._happen(now, kind, subject, job)
        for number in list(self._tasks):
            self._end(now, number)
        return Outcome(
            waits=np.array(self._waits, dtype=float),
            task_hours=self._hours / 3600,
            most_tasks=self._most,
            starts=self._count_of_tasks,
            cut_off=self._cut_off,
            ended=self._ended,
        )

    def _push(self, at: float, kind: _Kind, subject: int = 0, job: int = 0) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, kind, subject, job))

    def _arrive(self, now: float, job: int) -> None:
        if not self._queue and (number := self._free_task()) is not None:
            self._begin(now, number, job, delay=self._chance.random() * self._fleet.poll_seconds)
        else:
            self._queue.append(job)

    def _happen(self, now: float, kind: _Kind, subject: int, job: int) -> None:
        if kind is _Kind.TICK:
            self._tick(now)
        elif (task := self._tasks.get(subject)) is None:
            return
        elif kind is _Kind.DONE:
            if task.busy.pop(job, None) is not None:
                self._ended += 1
                self._working -= 1
                self._go_on(now, subject, task)
        elif kind is _Kind.READY:
            if not task.ready:
                task.ready = True
                self._starting -= 1
                self._running += 1
                for _ in range(self._fleet.concurrency):
                    self._go_on(now, subject, task)
        elif kind is _Kind.NOTICE:
            self._leave(now, subject, task, patience=self._fleet.notice_seconds)
            self._want(now, self._desired)
        else:
            self._cut(now, subject, task)

    def _go_on(self, now: float, number: int, task: _Task) -> None:
        """A place of a task is free."""
        if task.leaving:
            if not task.busy:
                self._end(now, number)
        elif self._queue:
            self._begin(now, number, self._queue.popleft())
        else:
            self._free.append(number)

    def _free_task(self) -> int | None:
        while self._free:
            number = self._free.popleft()
            task = self._tasks.get(number)
            if task is not None and task.ready and not task.leaving and len(task.busy) < self._fleet.concurrency:
                return number
        return None

    def _begin(self, now: float, number: int, job: int, *, delay: float = 0.0) -> None:
        if self._waits[job] is None:
            self._waits[job] = now + delay - self._arrivals[job]
        self._tasks[number].busy[job] = now + delay
        self._working += 1
        self._push(now + delay + self._left[job], _Kind.DONE, number, job)

    def _tick(self, now: float) -> None:
        seen = Seen(waiting=len(self._queue), working=self._working, desired=self._desired)
        self._want(now, min(max(self._policy.wanted(now, seen), self._policy.minimum), self._policy.maximum))
        self._push(now + self._policy.tick_seconds, _Kind.TICK)

    def _want(self, now: float, desired: int) -> None:
        self._desired = desired
        have = self._starting + self._running
        for _ in range(desired - have):
            self._count_of_tasks += 1
            number = self._count_of_tasks
            self._tasks[number] = _Task(now)
            self._starting += 1
            self._push(now + self._fleet.start_seconds, _Kind.READY, number)
            if self._fleet.interruptions_an_hour:
                self._push(now + self._chance.expovariate(self._fleet.interruptions_an_hour / 3600), _Kind.NOTICE, number)
        self._most = max(self._most, len(self._tasks))
        if have > desired:
            self._shrink(now, have - desired)

    def _shrink(self, now: float, by: int) -> None:
        staying = [(number, task) for number, task in self._tasks.items() if not task.leaving]
        self._chance.shuffle(staying)
        # The platform gives up what has not started, and may be told to spare what works.
        staying.sort(key=lambda each: (each[1].ready, bool(each[1].busy) if self._fleet.protected else False))
        for number, task in staying[:by]:
            if task.busy and self._fleet.protected:
                return
            self._leave(now, number, task, patience=self._fleet.drain_seconds)

    def _leave(self, now: float, number: int, task: _Task, *, patience: float) -> None:
        if task.leaving:
            return
        task.leaving = True
        if task.ready:
            self._running -= 1
        else:
            self._starting -= 1
        if task.busy:
            self._push(now + patience, _Kind.KILL, number)
        else:
            self._end(now, number)

    def _cut(self, now: float, number: int, task: _Task) -> None:
        for job, began in task.busy.items():
            done = min(max(now - began, 0.0), self._left[job])
            self._left[job] -= done * self._fleet.kept
            self._queue.appendleft(job)
            self._cut_off += 1
        self._working -= len(task.busy)
        task.busy.clear()
        self._end(now, number)
        while self._queue and (other := self._free_task()) is not None:
            self._begin(now, other, self._queue.popleft())

    def _end(self, now: float, number: int) -> None:
        task = self._tasks.pop(number)
        self._hours += now - task.began


def arrivals_of(jobs_a_day: int, *, days: int, bursts: float, seed: int) -> np.ndarray:
    """When jobs are sent, sorted, in seconds: more by day, two peaks; the share `bursts` of them in a few minutes of each day."""
    chance = np.random.default_rng(seed)
    hours = np.arange(24)
    weights = 0.15 + np.exp(-((hours - 10) ** 2) / 6) + 0.8 * np.exp(-((hours - 15) ** 2) / 8)
    bounds = np.concatenate([[0.0], np.cumsum(weights / weights.sum())])
    found = []
    for day in range(days):
        in_bursts = int(chance.binomial(jobs_a_day, bursts))
        spread = np.interp(chance.random(jobs_a_day - in_bursts), bounds, np.arange(25) * 3600.0)
        begins = np.interp(chance.random(4), bounds, np.arange(25) * 3600.0)
        burst = chance.choice(begins, in_bursts) + chance.random(in_bursts) * 60.0
        found.append(day * DAY + np.concatenate([spread, burst]))
    return np.sort(np.concatenate(found))


def service_seconds(count: int, *, mean: float, spread: float, seed: int) -> np.ndarray:
    """How long jobs take: log-normal with this mean; `spread`: the deviation of the logarithm."""
    return np.random.default_rng(seed).lognormal(np.log(mean) - spread**2 / 2, spread, count)
