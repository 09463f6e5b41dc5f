"""What the worker gives a handler, on the real ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.job import Units
from bridge.ledger.port import Claim
from bridge.store import Store


@dataclass
class ClaimedContext:
    """A claim, and checkpoints that are written under it."""

    store: Store
    claim: Claim

    async def checkpoint(self, saved: Mapping[str, Any], writes: Any = ()) -> None:
        await self.store.ledger.checkpoint(self.claim, saved, writes)

    def report(self, progress: float, stage: str, units: Units | None = None) -> None:
        return
