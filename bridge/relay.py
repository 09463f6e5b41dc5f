"""Sends what the outbox holds. Any number of replicas may run it; each message is leased to one of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

import structlog

from bridge.errors import BridgeError
from bridge.job import Message
from bridge.ledger.port import Outbox
from bridge.sinks.port import Sink
from bridge.steps import Observer, Step, StepTaken
from bridge.tracing.context import TRACEPARENT, TRACESTATE, carrier
from bridge.tracing.port import Kind, NullTracer, Tracer
from bridge.vitals import Vitals

_log = structlog.get_logger()
# Batches that may be under way when the next is taken.
_MOST_UNDER_WAY = 2


@dataclass(frozen=True, kw_only=True)
class RelayPolicy:
    """How the relay goes about. Times in seconds."""

    # Messages taken at once.
    batch: int = 64
    # How often the outbox is looked at when nothing woke the relay.
    poll_seconds: float = 1.0
    # How long a message stays with a relay that died.
    lease_seconds: float = 30.0
    # How long one message may take to send; less than the lease.
    send_seconds: float = 20.0
    # The wait after the first failure, doubled with each; and its bound.
    backoff_seconds: float = 1.0
    backoff_limit_seconds: float = 300.0


class Relay:
    """Sends each message until its sink has it. A message that cannot be sent holds up no other."""

    def __init__(
        self,
        outbox: Outbox,
        sink: Sink,
        observer: Observer,
        policy: RelayPolicy | None = None,
        *,
        vitals: Vitals | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._outbox = outbox
        self._sink = sink
        self._observer = observer
        self._policy = policy or RelayPolicy()
        self._vitals = vitals or Vitals()
        self._tracer = tracer or NullTracer()
        self._woken = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Something was committed: look at once."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`, and what is due at that moment."""
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                if not await self._watched_pass(group):
                    await self._rest(stop)
            while await self._watched_pass(group) or self._sending:
                await self._room(most=0)

    async def _watched_pass(self, group: asyncio.TaskGroup) -> bool:
        self._vitals.begin("relay", within=self._policy.send_seconds)
        try:
            return await self._pass(group)
        finally:
            self._vitals.rest("relay")

    async def _pass(self, group: asyncio.TaskGroup) -> bool:
        """Begin to send one batch; false when there was nothing to send or the outbox cannot be read.

        The batches before it may still be under way, for each message is leased.
        """
        await self._room(most=_MOST_UNDER_WAY * self._policy.batch)
        started = time.monotonic()
        self._woken.clear()
        try:
            messages = await self._outbox.take(limit=self._policy.batch, lease_seconds=self._policy.lease_seconds)
        except Exception as error:
            _log.warning("outbox_unreadable", error=f"{type(error).__name__}: {error}")
            return False
        for message in messages:
            self._note(Step.TAKEN, message, since=started)
            task = group.create_task(self._send(message), name=f"send {message.message_id}")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return bool(messages)

    async def _room(self, *, most: int) -> None:
        """Wait until no more than so many messages are being sent."""
        while len(self._sending) > most:
            await asyncio.wait(set(self._sending), return_when=asyncio.FIRST_COMPLETED)

    async def _send(self, message: Message) -> None:
        started = time.monotonic()
        facts = {
            "messaging.destination.name": message.destination,
            "messaging.message.id": message.message_id,
            "lamina.job.key": message.job_key,
        }
        parent = carrier(message.attributes.get(TRACEPARENT), message.attributes.get(TRACESTATE))
        span = self._tracer.start(f"send {message.type}", parent=parent, kind=Kind.PRODUCER, facts=facts)
        try:
            async with asyncio.timeout(self._policy.send_seconds):
                await self._sink.send(replace(message, attributes={**message.attributes, **span.carrier}) if parent else message)
            self._note(Step.SENT, message, since=started)
        except Exception as error:
            span.end(failure=type(error).__name__)
            await self._postpone(message, error)
            return
        span.end()
        try:
            await self._outbox.mark_sent(message.message_id)
            self._note(Step.MARKED, message, since=started)
        except Exception as error:
            # It is sent again, under the same id, when the lease has run out.
            _log.warning("marking_failed", message_id=message.message_id, job=message.job_key, error=f"{type(error).__name__}: {error}")

    async def _postpone(self, message: Message, error: Exception) -> None:
        policy = self._policy
        delay = min(policy.backoff_limit_seconds, policy.backoff_seconds * 2.0 ** min(message.attempts, 30))
        text = f"{type(error).__name__}: {error}"
        _log.warning(
            "sending_failed",
            message_id=message.message_id,
            job=message.job_key,
            error=text,
            retry_in=delay,
            exc_info=None if isinstance(error, BridgeError | TimeoutError) else error,
        )
        started = time.monotonic()
        try:
            await self._outbox.postpone(message.message_id, delay_seconds=delay, error=text)
            self._note(Step.POSTPONED, message, since=started)
        except Exception as failure:
            _log.warning(
                "postponing_failed", message_id=message.message_id, job=message.job_key, error=f"{type(failure).__name__}: {failure}"
            )

    async def _rest(self, stop: asyncio.Event) -> None:
        """Wait until woken, told to stop, or it is time to look."""
        waits = [asyncio.ensure_future(event.wait()) for event in (stop, self._woken)]
        try:
            await asyncio.wait(waits, timeout=self._policy.poll_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _note(self, step: Step, message: Message, *, since: float) -> None:
        self._observer.on_step(StepTaken(step=step, job_key=message.job_key, system="", seconds=time.monotonic() - since))
