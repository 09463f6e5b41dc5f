"""Queues whose messages SQS itself gives up after few receipts."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from bridge.aws.names import Names, most_receipts, short_name
from bridge.errors import BridgeError, TransientError

_log = structlog.get_logger()
_FEW_RECEIPTS = 10
# How long a queue is not asked again what it does, after it did not tell.
_UNTOLD_SECONDS = 60.0


class ReceiptLimits:
    """Remembers what each queue tells of its redrive policy."""

    def __init__(self, names: Names, *, clock: Callable[[], float]) -> None:
        """`clock`: tells seconds, and never goes back."""
        self._names = names
        self._clock = clock
        self._few: dict[str, bool] = {}
        # When those may be asked again that did not tell.
        self._ask_again_at: dict[str, float] = {}

    async def are_few(self, queue: str) -> bool:
        """Whether a queue's messages are given up after ten receipts or fewer; false where it does not tell."""
        if queue not in self._few:
            if self._clock() < self._ask_again_at.get(queue, 0.0):
                return False
            try:
                policy = await self._names.redrive_policy(queue)
            except TransientError:
                return False
            except BridgeError as error:
                _log.warning("redrive_policy_unknown", queue=short_name(queue), error=str(error))
                self._ask_again_at[queue] = self._clock() + _UNTOLD_SECONDS
                return False
            self._few[queue] = few = most_receipts(policy) <= _FEW_RECEIPTS
            if few:
                _log.warning("few_receipts", queue=short_name(queue), reason="what waits comes back late for it; raise maxReceiveCount")
        return self._few[queue]
