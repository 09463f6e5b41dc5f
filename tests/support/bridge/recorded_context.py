"""The worker's side of a handler, written down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.job import Units, Write
from bridge.ledger.port import Claim


class RecordedContext:
    """Gives a claim, and keeps what the handler tells."""

    def __init__(self, *, job_key: str = "job-1", fence: int = 1, checkpoint: Mapping[str, Any] | None = None) -> None:
        self._claim = Claim(job_key=job_key, fence=fence, attempts=0, checkpoint=checkpoint or {})
        self.reports: list[tuple[float, str]] = []
        self.units: list[Units | None] = []
        self.checkpoints: list[Mapping[str, Any]] = []
        self.writes: list[Write] = []

    @property
    def claim(self) -> Claim:
        return self._claim

    async def checkpoint(self, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> None:
        # As the ledger stores it.
        self.checkpoints.append(json.loads(json.dumps(saved)))
        self.writes.extend(writes)

    def report(self, progress: float, stage: str, units: Units | None = None) -> None:
        self.reports.append((progress, stage))
        self.units.append(units)
