"""A ledger in front of which a platform's own rows have the last word on whether a job has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from bridge.job import Delivery, Job, Outcome, Progress, Write
from bridge.ledger.port import Claim, Counted, Jobs, Ledger, Refusal, State

_log = structlog.get_logger()
_ENDED = frozenset({State.SUCCEEDED, State.FAILED})


class AskedAnewLedger:
    """Begins a job anew that has ended, where its platform asks for it again under the same key. All else is the ledger's."""

    def __init__(self, ledger: Ledger, jobs: Jobs, *, asked_anew: Mapping[str, Callable[[str], Awaitable[bool]]]) -> None:
        """`asked_anew`: by system, whether the platform's row of a key is to be worked on, and nobody has begun."""
        self._ledger = ledger
        self._jobs = jobs
        self._asked_anew = asked_anew

    async def claim(self, job: Job, *, worker: str, lease_seconds: float) -> Claim | Refusal:
        """As the ledger does; of a job that has ended, once more where it is asked for anew."""
        answer = await self._ledger.claim(job, worker=worker, lease_seconds=lease_seconds)
        asked_anew = self._asked_anew.get(job.system)
        if isinstance(answer, Claim) or answer.state not in _ENDED or asked_anew is None or not await asked_anew(job.key):
            return answer
        _log.info("job_asked_anew", job=job.key, was=answer.state.value)
        await self._jobs.reopen(job.key, ended=True)
        return await self._ledger.claim(job, worker=worker, lease_seconds=lease_seconds)

    async def renew(self, claim: Claim, *, lease_seconds: float, progress: Progress | None = None) -> None:
        """As the ledger does."""
        await self._ledger.renew(claim, lease_seconds=lease_seconds, progress=progress)

    async def checkpoint(self, claim: Claim, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> Claim:
        """As the ledger does."""
        return await self._ledger.checkpoint(claim, saved, writes)

    async def finish(self, claim: Claim, outcome: Outcome, *, buried: Delivery | None = None, reason: str = "") -> None:
        """As the ledger does."""
        await self._ledger.finish(claim, outcome, buried=buried, reason=reason)

    async def release(self, claim: Claim, *, delay_seconds: float = 0.0, error: str = "", counted: Counted = Counted.SURVIVED) -> None:
        """As the ledger does."""
        await self._ledger.release(claim, delay_seconds=delay_seconds, error=error, counted=counted)
