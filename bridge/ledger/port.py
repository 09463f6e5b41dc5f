"""The ports of the ledger. All times are the database's clock, in seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Protocol

from bridge.job import Delivery, Job, Message, Outcome, Progress, Write

# A job over which so many servers in a row were lost is a suspect: of all suspects one is tried at a time, so that none that was merely
# beside another is counted with it again.
SUSPECT_LOSSES = 2


class State(StrEnum):
    """Where a job stands. SUCCEEDED and FAILED are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"  # for its next try
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Counted(Enum):
    """What the return of a job counts as."""

    # The holder came to an end of its own: interruptions before it are forgotten. With ATTEMPT it failed.
    SURVIVED = "nothing"
    ATTEMPT = "a failed try"
    # It came to no server: nothing is counted, and nothing forgotten.
    NOT_TRIED = "no try"
    # It lost its server over the job: an interruption too.
    SERVER_LOST = "a lost server"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on a job until its lease runs out."""

    job_key: str
    # Raised by every claim; a write with an older fence is refused.
    fence: int
    # Failed tries so far; interruptions are not counted.
    attempts: int
    # How many holders in a row let their lease run out, or lost their server over it, without a checkpoint in between.
    interruptions: int = 0
    # How many of them lost their server over it.
    server_losses: int = 0
    # Seconds since it was first claimed.
    age: float = 0.0
    # What the last holder saved, or empty.
    checkpoint: Mapping[str, Any]
    # The trace that the job has belonged to since its first claim: W3C's headers; empty for none.
    trace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a job could not be claimed."""

    state: State
    # Seconds until it is worth asking again; 0 for terminal jobs.
    retry_after: float


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """What the ledger knows of a job."""

    key: str
    system: str
    state: State
    fence: int
    attempts: int
    request: Mapping[str, Any]
    result: Mapping[str, Any] | None
    # Why its last try failed, or empty.
    last_error: str
    # 0 to 1, and what is being done.
    progress: float
    stage: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    # Tiles or pages that are done, in all (0 until it is known), and a second; and the seconds left, None until they can be estimated.
    units_done: int = 0
    units_total: int = 0
    units_per_second: float = 0.0
    seconds_left: float | None = None
    # Raised whenever there is something new to be seen.
    revision: int = 0


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message that ended without a result, kept whole so that it can be replayed."""

    id: int
    source: str
    queue: str
    message_id: str
    # Empty when the message could not be read.
    job_key: str
    reason: str
    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    dead_at: float
    replayed_at: float | None


class Ledger(Protocol):
    """Who works on which job."""

    async def claim(self, job: Job, *, worker: str, lease_seconds: float) -> Claim | Refusal:
        """Insert or take over the job's row when it is not terminal, is due, and its lease has run out; raise its fence.

        A suspect is refused while another one is tried.
        """

    async def renew(self, claim: Claim, *, lease_seconds: float, progress: Progress | None = None) -> None:
        """Prolong the lease, and write how far the work is unless it was further. Raises `LeaseLostError`."""

    async def checkpoint(self, claim: Claim, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> Claim:
        """Save what a later claim can go on from, and make the writes that belong to it, in one transaction.

        Returns the claim with what is counted against the job now. Raises `LeaseLostError`; `PermanentError` when a write is refused,
        and nothing was done.
        """

    async def finish(self, claim: Claim, outcome: Outcome, *, buried: Delivery | None = None, reason: str = "") -> None:
        """End the job in one transaction: its state, its result, its outbox, its dead letter, its writes.

        Raises `LeaseLostError`; `PermanentError` when a write is refused, and nothing was done.
        """

    async def release(self, claim: Claim, *, delay_seconds: float = 0.0, error: str = "", counted: Counted = Counted.SURVIVED) -> None:
        """Give the job back for a later try. Raises `LeaseLostError`."""


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What is still to be sent."""

    # Messages.
    depth: int
    # Seconds since the oldest was committed; 0 when there is none.
    oldest_age: float


class Outbox(Protocol):
    """Messages that are committed and not yet sent."""

    async def take(self, *, limit: int, lease_seconds: float) -> Sequence[Message]:
        """Take messages that are due and that no other relay holds, oldest first."""

    async def mark_sent(self, message_id: str) -> None:
        """Record that a message has arrived at its sink."""

    async def postpone(self, message_id: str, *, delay_seconds: float, error: str) -> None:
        """Record that a try to send failed."""

    async def backlog(self) -> Backlog:
        """How much is still to be sent, taken messages included."""


class DeadLetters(Protocol):
    """Messages that ended without a result."""

    async def bury(self, delivery: Delivery, *, reason: str) -> None:
        """Keep a message that cannot be read; burying the same message twice keeps one."""

    async def list(self, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The newest first."""

    async def reopen(self, letter_id: int) -> DeadLetter:
        """Let the letter's job be claimed anew; the caller then sends the bytes again. Raises `PermanentError` when there is none."""

    async def mark_replayed(self, letter_id: int) -> None:
        """Record that the bytes have been sent again. A crash before this is mended by replaying once more."""

    async def waiting(self) -> int:
        """How many nobody has replayed."""


class Jobs(Protocol):
    """What people and programs ask about jobs."""

    async def announce(self, job: Job) -> None:
        """Record a job as queued before its message is sent; harmless when it is known."""

    async def find(self, key_prefix: str) -> JobRecord | None:
        """The one job whose key starts so; None when none does, or several do."""

    async def find_open(self, key_prefix: str) -> JobRecord | None:
        """The newest job whose key starts so and that has not ended; None when there is none."""

    async def reopen(self, key: str, *, ended: bool = False) -> bool:
        """Let a failed job be claimed anew, with all its attempts; false when it has not failed. `ended`: one that succeeded too."""

    async def list(self, *, limit: int = 50, state: State | None = None) -> Sequence[JobRecord]:
        """The newest first."""


class Pruner(Protocol):
    """Takes away what nobody will ask for any more."""

    async def prune(self, *, keep_seconds: float, limit: int = 500) -> int:
        """Remove jobs that ended, or were begun and left alone, messages that were sent, and letters that died longer ago.

        At most `limit` rows of each kind, so that nothing is locked for long; returns how many.
        """
