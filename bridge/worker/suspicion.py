"""When a job is taken for the cause of what happens to those who work on it, by what the ledger counts."""

from __future__ import annotations

from dataclasses import replace

from bridge.ledger.port import Claim
from bridge.worker.policy import WorkPolicy


def with_server_lost(claim: Claim) -> Claim:
    """What the ledger will count once the job has been given back for a server that was lost over it."""
    return replace(claim, interruptions=claim.interruptions + 1, server_losses=claim.server_losses + 1)


def blame(claim: Claim, policy: WorkPolicy) -> str:
    """Why a job is to be given up, by what is counted; empty while it is to be tried."""
    if claim.server_losses >= policy.max_server_losses:
        return _kills_servers(claim.server_losses)
    if claim.interruptions > policy.max_interruptions:
        return _kills_servers(claim.interruptions) if claim.server_losses else _kills_bridges(claim.interruptions)
    return ""


def _kills_bridges(times: int) -> str:
    return (
        f"{times} workers in a row died or froze over this job without getting further; it is taken for their cause. "
        "Look at their logs and memory, then replay it"
    )


def _kills_servers(times: int) -> str:
    return (
        f"{times} times in a row the inference server (or the bridge) died or froze, or the connection broke, while it worked on "
        "this job, which got no further in between; it is taken for the cause. Look at the server's log and memory: after a crash mend or "
        "replace the input, out of memory give it more, behind a proxy that cuts calls off let them last; then replay it"
    )
