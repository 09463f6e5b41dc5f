"""Receives for free slots only, and drains when told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from bridge.errors import TransientError
from bridge.job import Delivery
from bridge.worker.assignment import Assignment
from bridge.worker.policy import Backoff, Desk
from bridge.worker.throttle import Throttle

_log = structlog.get_logger()
# What the loop is called where it leaves its signs of life.
_LOOP = "worker"
# How often a drain looks whether its deadline has moved, in seconds.
_LOOK_SECONDS = 1.0


class Worker:
    """The one loop: receive → claim → handle → commit → acknowledge."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._throttle = Throttle(limit=desk.policy.overload_seconds)
        self._running: dict[asyncio.Task[None], Assignment] = {}
        # Set whenever a job ends.
        self._freed = asyncio.Event()
        self._receive_failures = 0
        # Why the newest try to receive failed; None when it did not.
        self._receive_error: Exception | None = None
        # By the event loop's clock; None for what the policy says.
        self._drain_until: float | None = None

    @property
    def in_flight(self) -> int:
        """Deliveries being worked on."""
        return len(self._running)

    async def probe(self) -> None:
        """Raise why nothing could be received at the newest try."""
        if self._receive_error is not None:
            raise TransientError(f"receiving failed: {type(self._receive_error).__name__}: {self._receive_error}") from self._receive_error

    def drain_until(self, deadline: float) -> None:
        """How long running jobs may go on once the worker is told to stop, by the event loop's clock, instead of what the policy says.

        Of several deadlines the earliest counts.
        """
        self._drain_until = deadline if self._drain_until is None else min(deadline, self._drain_until)

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event) -> None:
        """Work until `stop`, then drain: until the deadline, or until `hurry`. Running work is never left behind."""
        try:
            while not stop.is_set():
                free = await self._wait_for_slot(stop)
                if stop.is_set():
                    break
                deliveries = await self._receive(free, stop)
                if stop.is_set():
                    # The poll was let end: what it brought would else wait for its lease to run out.
                    await self._return(deliveries)
                    break
                for delivery in deliveries:
                    self._begin(delivery)
            await self._drain(hurry)
        finally:
            await self._abandon()

    async def _wait_for_slot(self, stop: asyncio.Event) -> int:
        """Wait until something may be received; returns for how many slots."""
        while not stop.is_set():
            free = self._desk.policy.concurrency - len(self._running)
            if self._throttle.probing:
                free = min(free, 1)
            pause = self._throttle.pause()
            if free > 0 and pause <= 0:
                return free
            self._freed.clear()
            await _first_of([stop, self._freed], seconds=pause if free > 0 else None)
        return 0

    async def _receive(self, limit: int, stop: asyncio.Event) -> Sequence[Delivery]:
        policy, vitals = self._desk.policy, self._desk.vitals
        vitals.begin(_LOOP, within=policy.poll_seconds)
        try:
            deliveries = await self._desk.source.receive(limit=limit, wait_seconds=policy.poll_seconds)
        except Exception as error:
            vitals.rest(_LOOP)
            self._receive_error = error
            self._receive_failures += 1
            pause = Backoff(base=policy.backoff.base, limit=min(policy.backoff.limit, policy.lease_seconds)).delay(self._receive_failures)
            _log.warning("receiving_failed", error=f"{type(error).__name__}: {error}", retry_in=round(pause, 3))
            await _first_of([stop], seconds=pause)
            return ()
        vitals.rest(_LOOP)
        self._receive_failures, self._receive_error = 0, None
        return deliveries

    def _begin(self, delivery: Delivery) -> None:
        self._throttle.began(delivery)
        assignment = Assignment(self._desk, self._throttle, delivery)
        task = asyncio.create_task(assignment.run(), name=f"delivery {delivery.message_id}")
        self._running[task] = assignment
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._freed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("assignment_broke", exc_info=error)

    async def _return(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            try:
                await self._desk.source.release(delivery, delay_seconds=0.0, tried=False)
            except Exception as error:
                _log.warning("return_failed", message_id=delivery.message_id, error=f"{type(error).__name__}: {error}")

    async def _drain(self, hurry: asyncio.Event) -> None:
        policy = self._desk.policy
        if not self._running:
            return
        clock = asyncio.get_running_loop().time
        planned = clock() + policy.drain_seconds
        _log.info("draining", jobs=len(self._running), seconds=round((self._drain_until or planned) - clock(), 1))
        # The deadline may move meanwhile.
        while self._running and not hurry.is_set() and (left := (self._drain_until or planned) - clock()) > 0:
            self._freed.clear()
            await _first_of([hurry, self._freed], seconds=min(left, _LOOK_SECONDS))
        if self._running:
            _log.info("interrupting", jobs=len(self._running))
            for assignment in self._running.values():
                assignment.interrupt()
            await asyncio.wait(set(self._running), timeout=policy.cancel_seconds)

    async def _abandon(self) -> None:
        """Cancel what would not end. Its leases run out, and it is done elsewhere."""
        tasks = set(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2 * self._desk.policy.cancel_seconds)


async def _first_of(events: Sequence[asyncio.Event], *, seconds: float | None) -> None:
    """Wait until one of the events is set, or the time is over."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
