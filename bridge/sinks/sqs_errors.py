"""Poison of SQS: into the queue's `_error` queue, or `_skipped` when it is a sound message for somebody else, as MassTransit does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID, uuid5

import structlog

from bridge.aws.names import neighbour, short_name
from bridge.envelopes import masstransit
from bridge.errors import BridgeError, ConfigurationError, PermanentError, PoisonError
from bridge.job import UNREADABLE, Delivery
from bridge.sinks.sqs import SqsQueues

_log = structlog.get_logger()
_FAULTS = UUID("2b4c3c0a-7f6e-5f0e-8a57-0a9d3e6b9d51")
# SQS carries ten; the rest is for what is wrong, and for how the body travels.
_KEPT_ATTRIBUTES = 4


class SqsErrorQueues:
    """Puts messages aside. What it returns from is confirmed by SQS."""

    def __init__(self, queues: SqsQueues, *, source: str = "sqs", skips: Callable[[Delivery], bool] = lambda _: False) -> None:
        """`source`: whose deliveries are put aside. `skips`: whether a message is sound, and for somebody else."""
        self._queues = queues
        self._source = source
        self._skips = skips

    async def put(self, delivery: Delivery, *, reason: str) -> None:
        """Put a message aside, with its original bytes. Raises `TransientError`.

        Where there is no `_error` queue, it goes to the one that SQS itself moves dead messages to; where there is none either, or it
        does not take the message, the ledger's dead letters alone keep it.
        """
        if delivery.source != self._source:
            return
        skipped = self._skips(delivery)
        queue = neighbour(delivery.queue, "_skipped" if skipped else "_error")
        told = masstransit.skipped_attributes() if skipped else masstransit.error_attributes(reason, queue=short_name(delivery.queue))
        kept = [(name, value) for name, value in delivery.attributes.items() if name != UNREADABLE][:_KEPT_ATTRIBUTES]
        try:
            await self._send(delivery, queue, {**dict(kept), **told}, skipped=skipped)
        except (ConfigurationError, PermanentError) as error:
            _log.warning("error_queue_refused", queue=queue, message_id=delivery.message_id, error=str(error))
            return
        if not skipped:
            await self._tell(delivery, reason)

    async def _send(self, delivery: Delivery, queue: str, attributes: Mapping[str, str], *, skipped: bool) -> None:
        try:
            await self._queues.send(queue, delivery.body, message_id=delivery.message_id, attributes=attributes)
        except ConfigurationError:
            dead = "" if skipped else await self._queues.dead_letter_queue(delivery.queue)
            if not dead:
                raise
            await self._queues.send(dead, delivery.body, message_id=delivery.message_id, attributes=attributes)

    async def _tell(self, delivery: Delivery, reason: str) -> None:
        """Send MassTransit's fault to whoever asked to be told."""
        try:
            request = masstransit.read(delivery.body)
            address = request.fault_address
            if not address:
                return
            us = f"queue:{short_name(delivery.queue)}"
            message_id = str(uuid5(_FAULTS, f"{delivery.queue}/{delivery.message_id}"))
            body = masstransit.fault(request, message_id=message_id, source=us, destination=address, reason=reason)
            name = short_name(address.partition("?")[0])
            await self._queues.send(name, body, message_id=message_id, attributes={"Content-Type": masstransit.CONTENT_TYPE})
        except PoisonError:
            return
        except BridgeError as error:
            _log.warning("fault_not_told", message_id=delivery.message_id, error=str(error))
