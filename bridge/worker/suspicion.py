"""When a job is taken for the cause of what happens to those who work on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.ledger.port import Claim


class Suspicion:
    """How many in a row were lost over a job without getting further, as the ledger counts it, while one try runs."""

    def __init__(self, claim: Claim) -> None:
        self._earlier = claim.interruptions
        self._saved = claim.checkpoint

    def saved(self, saved: Mapping[str, Any]) -> None:
        """Something was saved: unless it is the same as before, the job gets on."""
        if saved != self._saved:
            self._saved, self._earlier = saved, 0

    @property
    def with_this(self) -> int:
        """The count, when this try is lost too."""
        return self._earlier + 1


def kills_bridges(interruptions: int) -> str:
    """Why a job is given up over which a bridge was lost last."""
    return (
        f"{interruptions} workers in a row died or froze over this job without getting further; it is taken for their cause. "
        "Look at their logs and memory (the bridges', and the inference servers'), then replay it"
    )


def kills_servers(interruptions: int) -> str:
    """Why a job is given up over which the inference server was lost last."""
    return (
        f"{interruptions} times in a row the inference server (or the bridge) died or froze, or the connection broke, while it worked on "
        "this job, which got no further in between; it is taken for the cause. Look at the server's log and memory: after a crash mend or "
        "replace the input, out of memory give it more, behind a proxy that cuts calls off let them last; then replay it"
    )
