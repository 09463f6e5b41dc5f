"""Keeps a job's two leases, the ledger's and the queue's, for as long as it is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from bridge.errors import LeaseLostError
from bridge.job import Delivery, Progress
from bridge.ledger.port import Claim
from bridge.vitals import Lease
from bridge.worker.policy import Desk

_log = structlog.get_logger()
# Progress is written at most so often, in seconds.
_REPORT_SECONDS = 1.0


class Heartbeat:
    """Renews both leases at a third of their length. An error only makes it try again sooner.

    It outlives the work: it is closed after the job's end has been committed, and before its message is given up.
    """

    def __init__(self, desk: Desk, delivery: Delivery, claim: Claim, *, lost: Callable[[], None], renewed: Callable[[], None]) -> None:
        """`lost`: called once, when another worker has taken the job over. `renewed`: called after every renewal."""
        self._desk = desk
        self._delivery = delivery
        self._claim = claim
        self._tell_lost = lost
        self._tell_renewed = renewed
        # What was reported, and of that what has been written.
        self._progress: Progress | None = None
        self._written: Progress | None = None
        self._holds_job = True
        self._holds_message = True
        self._reported = asyncio.Event()
        self._closing = asyncio.Event()
        # Most work ends before its first beat: until then there is but a timer.
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None
        # Whether another worker has taken the job over.
        self.lost = False

    async def __aenter__(self) -> Self:
        vitals, seconds = self._desk.vitals, self._desk.policy.lease_seconds
        vitals.leased(Lease.LEDGER, self._claim.job_key, seconds=seconds)
        vitals.leased(Lease.QUEUE, self._delivery.receipt, seconds=seconds)
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._desk.policy.beat_seconds
        self._timer = loop.call_at(self._due, self._start)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._closing.set()
        self._reported.set()
        try:
            if self._task is not None:
                await self._end(self._task)
        finally:
            self._show_no_life()

    async def _end(self, task: asyncio.Task[None]) -> None:
        # A renewal under way is let end, so that it does not come after the message has been given up.
        await asyncio.wait({task}, timeout=self._desk.policy.cancel_seconds)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})

    def _show_no_life(self) -> None:
        vitals = self._desk.vitals
        if self._task is not None:
            vitals.rest(self._task.get_name())
        vitals.unleased(Lease.LEDGER, self._claim.job_key)
        vitals.unleased(Lease.QUEUE, self._delivery.receipt)

    def report(self, progress: Progress) -> None:
        """Tell how far the work is; written at most once a second."""
        if progress != self._progress:
            self._progress = progress
            self._reported.set()
            self._start()

    def release_job(self) -> None:
        """The ledger's lease has ended as it should; the message's is still kept."""
        self._holds_job = False
        self._desk.vitals.unleased(Lease.LEDGER, self._claim.job_key)

    def _start(self) -> None:
        if self._task is None and not self._closing.is_set():
            self._task = asyncio.create_task(self._run(), name=f"heartbeat {self._claim.job_key}")

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        beat = self._desk.policy.beat_seconds
        due = self._due
        vitals, name = self._desk.vitals, f"heartbeat {self._claim.job_key}"
        while not self._closing.is_set():
            # Both renewals may take a lease each.
            vitals.begin(name, within=2 * self._desk.policy.lease_seconds + beat)
            await _wait(self._reported, due - clock())
            self._reported.clear()
            if self._closing.is_set():
                return
            if clock() >= due:
                healthy = [await self._renew_job(), await self._renew_message()]
                due = clock() + (beat if all(healthy) else beat / 3)
            else:
                await self._renew_job()
                await _wait(self._closing, min(_REPORT_SECONDS, due - clock()))

    async def _renew_job(self) -> bool:
        """Renew the ledger's lease; false when that went wrong and should be tried again soon."""
        if not self._holds_job:
            return True
        lease, progress = self._desk.policy.lease_seconds, self._progress
        try:
            async with asyncio.timeout(lease):
                await self._desk.ledger.renew(self._claim, lease_seconds=lease, progress=None if progress == self._written else progress)
        except LeaseLostError:
            if self._holds_job:
                self._holds_job = False
                self._desk.vitals.unleased(Lease.LEDGER, self._claim.job_key)
                self.lost = True
                self._tell_lost()
            return True
        except Exception as error:  # whatever it is, the work goes on: its writes are fenced
            _log.warning("renewal_failed", lease="ledger", error=f"{type(error).__name__}: {error}")
            return False
        self._written = progress
        self._desk.vitals.leased(Lease.LEDGER, self._claim.job_key, seconds=lease)
        self._tell_renewed()
        return True

    async def _renew_message(self) -> bool:
        """Renew the queue's lease; false when that went wrong and should be tried again soon."""
        if not self._holds_message:
            return True
        lease = self._desk.policy.lease_seconds
        try:
            async with asyncio.timeout(lease):
                await self._desk.source.renew(self._delivery, lease_seconds=lease)
        except LeaseLostError as error:
            # Delivered again, perhaps to us: the ledger refuses it there, so the work goes on.
            self._holds_message = False
            self._desk.vitals.unleased(Lease.QUEUE, self._delivery.receipt)
            _log.warning("message_delivered_elsewhere", reason=str(error))
        except Exception as error:
            _log.warning("renewal_failed", lease="queue", error=f"{type(error).__name__}: {error}")
            return False
        self._desk.vitals.leased(Lease.QUEUE, self._delivery.receipt, seconds=lease)
        return True


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not longer."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return
