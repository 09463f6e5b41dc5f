"""What a handler may do while it works on a claimed job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from bridge.job import Progress, Units, Write
from bridge.ledger.port import Claim
from bridge.worker.heartbeat import Heartbeat


class WorkContext:
    """The `Context` of one claim."""

    def __init__(
        self,
        claim: Claim,
        heartbeat: Heartbeat,
        *,
        save: Callable[[Claim, Mapping[str, Any], Sequence[Write]], Awaitable[Claim]],
        got_on: Callable[[], None],
    ) -> None:
        """`save`: as the ledger's `checkpoint`; `got_on`: called when the work has got anywhere."""
        # With what is counted against the job by now.
        self.claim = claim
        self.heartbeat = heartbeat
        self._save = save
        self._got_on = got_on

    async def checkpoint(self, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> None:
        """Save what a later try can go on from, and make the writes that belong to it: both or neither.

        Raises `LeaseLostError`; `OverloadError` when the ledger stays out of reach.
        """
        self.claim = await self._save(self.claim, saved, writes)

    def report(self, progress: float, stage: str, units: Units | None = None) -> None:
        """Tell how far the work is (0 to 1)."""
        self.heartbeat.report(Progress(share=min(max(progress, 0.0), 1.0), stage=stage, units=units or Units()))
        if progress > 0:
            self._got_on()
