"""Trying a call again within the process, with full-jitter back-off."""

from __future__ import annotations

import random
from collections.abc import AsyncIterable, Callable

import grpc
import stamina
import structlog
from stamina.instrumentation import RetryDetails, set_on_retry_hooks

from bridge.inference.policies import RetryPolicy
from bridge.inference.statuses import is_retried, is_well, retry_after

_log = structlog.get_logger()


def log_retries() -> None:
    """Have each retry logged as one short event. For the whole process, so the composition root calls it."""
    set_on_retry_hooks([_log_retry])


def _log_retry(details: RetryDetails) -> None:
    error = details.caused_by
    status = error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
    _log.info("inference_retried", status=status, tries=details.retry_num, wait_ms=round(details.wait_for * 1000))


def attempts(policy: RetryPolicy) -> AsyncIterable[stamina.Attempt]:
    """Give each try of one call as a context that swallows an error worth another try. The last error comes through."""
    return stamina.retry_context(on=_backoff(policy), attempts=policy.attempts, timeout=None)


def _backoff(policy: RetryPolicy) -> Callable[[Exception], bool | float]:
    tries = 0

    def seconds_until_next(error: Exception) -> bool | float:
        nonlocal tries
        # What the server cannot mend by itself takes longer, and the slot is free meanwhile.
        if not isinstance(error, grpc.aio.AioRpcError) or not is_retried(error) or is_well(error):
            return False
        tries += 1
        most = min(policy.wait_initial * 2**tries, policy.wait_most)
        asked = retry_after(error) or 0.0
        # A server that wants us away for longer gets its job put back, so that the slot is free meanwhile.
        if asked > policy.wait_most:
            return False
        # No sooner than asked, and spread, so that a crowd of callers does not come back as one.
        return asked + random.uniform(0.0, most)  # noqa: S311

    return seconds_until_next
